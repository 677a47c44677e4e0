"""Known attacks on HTTP/2 servers: what is done for each attacking frame is counted, and has an end."""

import dataclasses
import itertools
import tracemalloc
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from data_plane.rls import frames
from data_plane.rls.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    ENHANCE_YOUR_CALM,
    HEADERS,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Http2Limits,
    frame,
)
from tests.unit.rls.harness import Peer, block, call, data, echoed, goaway_code, headers, literal, message, reset_codes

LIMITS = Http2Limits()
CANCELLED = b"\0\0\0\x08"
MOST = 20_000


class Done(NamedTuple):
    """What an attack brought about: ``attacks`` of so many frames until the connection was ended."""

    attacks: int
    frames_out: int
    bytes_out: int
    served: int
    code: int | None


def attack(peer: Peer, attacks: Iterator[bytes]) -> Done:
    count = frames_out = bytes_out = 0
    served, got = peer.served, []
    for sent in attacks:
        if peer.connection.ended or count >= MOST:
            break
        got = peer.send(sent)
        count += 1
        frames_out += len(got)
        bytes_out += sum(9 + len(one.payload) for one in got)
    return Done(count, frames_out, bytes_out, peer.served - served, goaway_code(got))


def odd() -> Iterator[int]:
    return itertools.count(1, 2)


def assert_ends_calmly(done: Done, *, frames_out_each: float, served_each: float = 0) -> None:
    assert done.code == ENHANCE_YOUR_CALM
    of_one_call = LIMITS.patience_per_answer + 2  # an answer, and two windows that may be widened
    assert done.attacks <= LIMITS.patience + of_one_call + 1
    assert done.frames_out <= frames_out_each * done.attacks + 1
    assert done.served <= served_each * done.attacks


def test_rapid_reset():
    """CVE-2023-44487: each attack is a call that is taken back; sent together it costs no decision at all."""
    together = attack(Peer(), (call(one) + frame(RST_STREAM, 0, one, CANCELLED) for one in odd()))
    assert_ends_calmly(together, frames_out_each=0)
    peer = Peer(answers=False)
    apart = attack(peer, (sent for one in odd() for sent in (call(one), frame(RST_STREAM, 0, one, CANCELLED))))
    assert apart.code == ENHANCE_YOUR_CALM
    assert apart.served <= LIMITS.patience + 1
    assert len(peer.connection.streams) == 0


def test_windows_that_calls_widen_are_no_attack():
    """gRPC's clients widen two with each call, and a node that stalled reads a thousand calls at once."""
    peer = Peer(answers=False)
    numbers = range(1, 2 * LIMITS.streams, 2)
    widened = [frames.window_update(0, 1_000) + call(one) + frames.window_update(one, 1_000) for one in numbers]
    assert goaway_code(peer.send(*widened)) is None
    assert len(peer.answer_all()) == 3 * LIMITS.streams
    afterwards = attack(peer, (frames.window_update(0, 1) for _ in itertools.count()))
    assert afterwards.code == ENHANCE_YOUR_CALM
    assert afterwards.attacks <= LIMITS.patience + LIMITS.patience_per_answer


def test_resets_that_we_are_made_to_send():
    """CVE-2025-8671 (MadeYouReset): the client has its calls reset by us, while they are decided."""
    wrong = (
        lambda one: frame(WINDOW_UPDATE, 0, one, bytes(4)),
        lambda one: frame(PRIORITY, 0, one, one.to_bytes(4, "big") + b"\0"),
        lambda one: data(one, b"more"),
        lambda one: headers(one, flags=END_HEADERS),
        lambda one: frame(WINDOW_UPDATE, 0, one, b"\x7f\xff\xff\xff"),
    )
    for make in wrong:
        peer = Peer(answers=False)
        done = attack(peer, (call(one) + make(one) for one in odd()))
        assert_ends_calmly(done, frames_out_each=1)
        assert len(peer.connection.streams) == 0


def test_data_dribble():
    """CVE-2019-9511: answers are drawn out by windows of one byte, one DATA frame for each."""
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 0})
    peer.send(*(call(one, b"x" * 4_000) for one in range(1, 201, 2)))
    done = attack(peer, (frames.window_update(1 + 2 * (nth % 100), 1) for nth in itertools.count()))
    assert_ends_calmly(done, frames_out_each=1)
    assert done.bytes_out < 12 * done.attacks


def noted(peer):
    """The streams that are looked at for more to send, from now on."""
    looked_at, send_more = [], peer.connection.send_more

    def counted(number):
        looked_at.append(number)
        send_more(number)

    peer.connection.send_more = counted
    return looked_at


def test_windows_of_the_connection_that_let_one_byte_pass():
    """The same by the connection's window, with many answers in line: none is looked at in vain."""
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 1 << 20})
    peer.send(*(call(one, b"x" * 4_000) for one in range(1, 201, 2)))
    looked_at = noted(peer)
    done = attack(peer, (frames.window_update(0, 1) for _ in itertools.count()))
    assert_ends_calmly(done, frames_out_each=1)
    assert len(looked_at) <= done.attacks


def test_ping_flood():
    """CVE-2019-9512: one answer each."""
    assert_ends_calmly(attack(Peer(), (frame(PING, 0, 0, bytes(8)) for _ in itertools.count())), frames_out_each=1)


def test_resource_loop():
    """CVE-2019-9513: priorities are not kept, so there is nothing to shuffle."""
    shuffled = (frame(PRIORITY, 0, one, bytes((0, 0, 0, 2 * (one % 7))) + b"\1") for one in odd())
    assert_ends_calmly(attack(Peer(), shuffled), frames_out_each=0)


def test_reset_flood():
    """CVE-2019-9514: invalid requests, each of which has us send RST_STREAM."""
    malformed = block(("Upper", "x"))
    done = attack(Peer(), (headers(one, malformed) for one in odd()))
    assert_ends_calmly(done, frames_out_each=1)
    refused = attack(Peer(dataclasses.replace(LIMITS, streams=0)), (headers(one) for one in odd()))
    assert_ends_calmly(refused, frames_out_each=1)
    closed = attack(Peer(), (call(1) if not nth else data(1, b"x") for nth in itertools.count()))
    assert closed.code == ENHANCE_YOUR_CALM


def test_settings_flood():
    """CVE-2019-9515: one answer each, however many values are in it; and none has all streams looked at."""
    assert_ends_calmly(attack(Peer(), (frames.settings({}) for _ in itertools.count())), frames_out_each=1)
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 0})
    peer.send(*(call(one) for one in range(1, 201, 2)))
    visited = noted(peer)
    many = frame(SETTINGS, 0, 0, b"\0\4\0\0\0\0\0\4\0\0\0\1" * 1_000 + b"\0\4\0\0\0\0")
    done = attack(peer, (many for _ in itertools.count()))
    assert_ends_calmly(done, frames_out_each=1)
    assert not visited, "what the last value leaves as it was is no change"
    again = Peer(settings={frames.INITIAL_WINDOW_SIZE: 0})
    again.send(*(call(one) for one in range(1, 1_801, 2)))
    visited = noted(again)
    to_and_fro = (frames.settings({frames.INITIAL_WINDOW_SIZE: 0 if nth % 2 else 1}) for nth in itertools.count())
    assert attack(again, to_and_fro).attacks < LIMITS.patience
    assert len(visited) <= 17 * LIMITS.patience


def test_headers_without_a_name_leave_nothing():
    """CVE-2019-9516."""
    peer = Peer()
    empty = block() + b"\0\0\0" * 20
    assert_ends_calmly(attack(peer, (headers(one, empty) for one in odd())), frames_out_each=1)
    assert peer.connection.streams == {}
    assert len(peer.connection.reader.known) == 0


def test_empty_frames_flood():
    """CVE-2019-9518."""
    for empty in (data(1, b"", ends=False), frame(DATA, frames.PADDED, 1, b"\0")):
        peer = Peer()
        peer.send(headers(1))
        assert_ends_calmly(attack(peer, (empty for _ in itertools.count())), frames_out_each=0)
    peer = Peer()
    peer.send(headers(1, b"", flags=0))
    empty = frame(CONTINUATION, 0, 1, b"")
    assert_ends_calmly(attack(peer, (empty for _ in itertools.count())), frames_out_each=0)


def test_tiny_frames_are_as_empty_ones():
    peer = Peer(dataclasses.replace(LIMITS, body_bytes=1 << 20))
    peer.send(headers(1))
    done = attack(peer, (data(1, b"x", ends=False) for _ in itertools.count()))
    assert_ends_calmly(done, frames_out_each=0)


def test_continuation_flood():
    """CVE-2024-27316: a header block that never ends is neither kept beyond its bound nor decoded."""
    peer = Peer()
    peer.send(headers(1, block(), flags=0))
    decoded = 0
    decode = peer.connection.reader.decode

    def counted(whole):
        nonlocal decoded
        decoded += 1
        return decode(whole)

    peer.connection.reader.decode = counted
    more = frame(CONTINUATION, 0, 1, literal(("x-more", "y" * 100)) * 40)
    done = attack(peer, (more for _ in itertools.count()))
    assert done.code == ENHANCE_YOUR_CALM
    assert done.attacks <= LIMITS.header_bytes // 4_000 + 1
    assert decoded == 0


def test_a_first_part_of_a_block_is_bounded_too():
    """A frame may be larger than a whole block may be (found by ``fuzz.py``)."""
    peer = Peer(dataclasses.replace(LIMITS, header_bytes=2_000))
    got = peer.send(frame(HEADERS, 0, 1, literal(("x-long", "y" * 100)) * 40))
    assert goaway_code(got) == ENHANCE_YOUR_CALM
    assert peer.connection.ended


def test_hpack_bomb():
    """CVE-2016-6581: a short block that names the table's longest field over and over."""
    long_field = b"\x40\x01x\x7f\x80\x1e" + b"y" * 3_967  # enters the table
    peer = Peer()
    assert set(echoed(peer.send(headers(1, block() + long_field), data(1, message(b"a"))))) == {1}
    before = len(peer.connection.reader.known)
    got = peer.send(headers(3, block() + b"\xbe" * 1_000))
    assert goaway_code(got) == ENHANCE_YOUR_CALM
    assert len(peer.connection.reader.known) <= before


def test_remembered_blocks_are_few_and_short():
    """A short block may stand for a long list, and there may be many of them."""
    peer = Peer()
    for nth, one in zip(range(1_000), odd(), strict=False):
        peer.send(call(one, head=block(("x-n", str(nth)))))
    assert len(peer.connection.reader.known) <= LIMITS.remembered_blocks
    assert len(peer.connection.reader.sound) <= 256
    peer = Peer()
    peer.send(call(1, head=block() + b"\x40\x01x\x7f\x80\x1e" + b"y" * 3_967))
    peer.send(call(3, head=block() + b"\xbe\xbe"))
    assert len(peer.connection.reader.known) == 0


def test_numbers_that_never_end():
    peer = Peer()
    got = peer.send(headers(1, block() + b"\x7f" + b"\x80" * 10_000))
    assert goaway_code(got) == frames.COMPRESSION_ERROR


@pytest.mark.parametrize("kind", ["bodies", "answers", "heads"])
def test_what_one_connection_keeps_is_bounded(kind):
    """As much as a client can make it keep: unfinished bodies, answers that it takes not, heads without bodies."""
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 0})
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for one in range(1, 4_001, 2):
            if peer.connection.ended:
                break
            if kind == "bodies":
                peer.send(headers(one), *(data(one, bytes(16_000), ends=False) for _ in range(4)))
            elif kind == "answers":
                peer.send(call(one, b"x" * 16_000))
            else:
                peer.send(headers(one, block(("x-long", "y" * 100)) + literal(("x-n", str(one)), ("z", "z" * 120))))
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 4 * LIMITS.buffered_bytes
    assert peer.connection.buffered <= LIMITS.buffered_bytes


def test_a_large_body_is_refused_once_and_the_rest_ignored():
    peer = Peer()
    peer.send(headers(1))
    got = [one for _ in range(6) for one in peer.send(data(1, bytes(16_000), ends=False))]
    assert [one.kind for one in got if one.stream == 1][-2:] == [HEADERS, RST_STREAM]
    assert reset_codes(got) == {1: frames.NO_ERROR}
    assert peer.served == 0


def test_a_call_in_flight_keeps_no_body():
    peer = Peer(answers=False)
    peer.send(*(call(one, bytes(16_000)) for one in range(1, 41, 2)))
    assert [asked.body for asked, _ in peer.waiting] == [b""] * 20


def test_an_answer_that_cannot_be_kept_is_no_trouble_of_who_answers():
    """It is given from within the store's batch, where an exception would be everybody's."""
    limits = dataclasses.replace(LIMITS, buffered_bytes=1_000)
    peer = Peer(limits, answers=False, settings={frames.INITIAL_WINDOW_SIZE: 0})
    peer.send(call(1, b"x" * 600), call(3, b"x" * 600), call(5))
    peer.connection.patience = 0
    assert reset_codes(peer.answer_all()) == {3: ENHANCE_YOUR_CALM}
    assert not peer.connection.ended
