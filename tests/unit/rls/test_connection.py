"""What a client of HTTP/2 may rely on, beside what h2spec asks (tests/integration/rls/test_conformance.py)."""

import dataclasses

import pytest

from data_plane.rls import frames
from data_plane.rls.frames import (
    ACK,
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    NO_ERROR,
    PADDED,
    PING,
    REFUSED_STREAM,
    RST_STREAM,
    STREAM_MASK,
    WINDOW_UPDATE,
    Http2Limits,
    frame,
)
from tests.unit.rls.harness import (
    Peer,
    block,
    call,
    data,
    echoed,
    goaway_code,
    headers,
    kinds,
    literal,
    message,
    reset_codes,
)

LIMITS = Http2Limits()


def test_a_call_is_answered_by_headers_a_message_and_trailers():
    got = Peer().send(call(1))
    assert [(one.kind, one.stream) for one in got] == [(HEADERS, 1), (DATA, 1), (HEADERS, 1)]
    assert got[1].payload == message(b"hello")
    assert got[2].flags == END_HEADERS | END_STREAM


def test_calls_of_one_read_are_answered_in_one_wake():
    peer = Peer()
    before = peer.woken
    peer.connection.receive(b"".join(call(stream) for stream in range(1, 101, 2)))
    assert peer.woken == before + 1
    assert len(echoed(peer.take())) == 50


def test_it_does_not_matter_how_bytes_are_cut():
    whole = b"".join(call(stream, b"x" * stream) for stream in (1, 3, 5))
    for size in (1, 2, 3, 7, 9, 10, 50):
        peer = Peer()
        got = [one for at in range(0, len(whole), size) for one in peer.send(whole[at : at + size])]
        assert echoed(got) == {1: b"x", 3: b"xxx", 5: b"xxxxx"}


def test_a_message_may_come_in_many_frames_between_those_of_others():
    peer = Peer()
    body = message(bytes(range(256)) * 4)
    peer.send(headers(1), headers(3))
    for at in range(0, len(body), 7):
        part = body[at : at + 7]
        peer.send(data(1, part, ends=False), frame(DATA, PADDED, 3, b"\x03" + part + b"\0\0\0"))
    got = peer.send(data(1, b""), frame(HEADERS, END_HEADERS | END_STREAM, 3, literal(("x-checksum", "1"))))
    assert set(echoed(got)) == {1, 3}
    assert echoed(got)[1] == echoed(got)[3] == body[5:]
    assert peer.connection.buffered == 0


def test_a_header_block_may_come_in_many_frames():
    whole = block()
    parts = [headers(1, whole[:10], flags=0), frame(CONTINUATION, 0, 1, b""), frame(CONTINUATION, 0, 1, whole[10:30])]
    got = Peer().send(*parts, frame(CONTINUATION, END_HEADERS, 1, whole[30:]), data(1, message(b"a")))
    assert echoed(got) == {1: b"a"}


def test_our_windows_let_a_client_send_for_ever():
    """Each message is longer than half of a stream's window, all of them longer than the connection's."""
    peer = Peer()
    said, window = b"y" * 60_000, LIMITS.window
    for stream in range(1, 401, 2):
        body = message(said)
        parts = [body[at : at + 16_000] for at in range(0, len(body), 16_000)]
        got = peer.send(headers(stream), *(data(stream, part, ends=part is parts[-1]) for part in parts))
        window -= len(body)
        assert window >= 0
        window += sum(frames.number(one.payload) for one in got if one.kind == WINDOW_UPDATE and not one.stream)
        assert echoed(got) == {} or len(echoed(got)[stream]) == len(said)
        peer.send(frames.window_update(0, len(body)))


@pytest.mark.parametrize("window", [0, 1, 5, 100])
def test_an_answer_waits_for_the_peers_window(window):
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: window})
    got = peer.send(call(1, b"z" * 500))
    assert sum(len(one.payload) for one in got if one.kind == DATA) == window
    for _ in range(505 - window):
        more = peer.send(frames.window_update(1, 1))
        assert [len(one.payload) for one in more if one.kind == DATA] == [1]
        got += more
    assert echoed(got) == {1: b"z" * 500}
    assert peer.connection.unsent == {}
    assert peer.connection.buffered == 0


def test_answers_share_the_connections_window_and_wait_in_line():
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 1 << 20})
    said = b"w" * 16_000
    got = peer.send(*(call(stream, said) for stream in (1, 3, 5, 7, 9)))
    assert set(echoed(got)) == {1, 3, 5, 7}
    for _ in range(3):
        got += peer.send(frames.window_update(0, 10_000))
    assert echoed(got)[9] == said


def test_a_smaller_window_may_be_negative_and_a_larger_one_lets_answers_go():
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 100})
    got = peer.send(call(1, b"v" * 200))
    got += peer.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 10}))
    got += peer.send(frames.window_update(1, 90))
    assert sum(len(one.payload) for one in got if one.kind == DATA) == 100
    got += peer.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 1_000}))
    assert echoed(got) == {1: b"v" * 200}


def test_a_call_beyond_those_in_flight_is_refused_and_the_others_go_on():
    peer = Peer(dataclasses.replace(LIMITS, streams=2), answers=False)
    got = peer.send(call(1), call(3), headers(5))
    assert reset_codes(got) == {5: REFUSED_STREAM}
    assert peer.send(data(5, message(b"late"))) == [], "what was on its way is ignored"
    assert set(echoed(peer.answer_all())) == {1, 3}
    peer.answers = True
    assert set(echoed(peer.send(call(7)))) == {7}


def test_a_call_that_is_taken_back_in_the_same_read_is_not_decided():
    peer = Peer()
    peer.send(call(1), frame(RST_STREAM, 0, 1, b"\0\0\0\x08"), call(3))
    assert peer.served == 1


def test_a_call_that_is_taken_back_later_is_not_answered_and_disturbs_no_other():
    peer = Peer(answers=False)
    peer.send(call(1), call(3), call(5))
    assert peer.send(frame(RST_STREAM, 0, 3, b"\0\0\0\x08")) == []
    assert set(echoed(peer.answer_all())) == {1, 5}


def test_who_hangs_up_in_mid_flight_gets_nothing():
    peer = Peer(answers=False)
    peer.send(call(1))
    peer.connection.lost()
    assert peer.answer_all() == []


def test_pings_are_answered_with_what_they_say():
    assert Peer().send(frame(PING, 0, 0, b"12345678"), frame(PING, ACK, 0, b"87654321")) == [
        (PING, ACK, 0, b"12345678"),
    ]


def test_draining_asks_to_go_elsewhere_and_answers_on():
    peer = Peer(answers=False)
    peer.send(call(1))
    peer.connection.drain()
    peer.connection.drain()
    asked_to_go = peer.take()
    assert kinds(asked_to_go) == [GOAWAY, PING]
    assert (frames.number(asked_to_go[0].payload[:4]), goaway_code(asked_to_go)) == (STREAM_MASK, NO_ERROR)
    peer.connection.finish()
    assert peer.take() == [], "what the client sent before it read of the drain may be on its way"
    last = peer.send(call(3), frame(PING, ACK, 0, asked_to_go[1].payload))
    assert (frames.number(last[0].payload[:4]), goaway_code(last)) == (3, NO_ERROR)
    assert peer.send(call(5)) == [], "what came after the last word is for others"
    assert not peer.connection.ended
    assert set(echoed(peer.answer_all())) == {1, 3}
    assert peer.connection.ended


def test_a_drained_connection_ends_at_once_when_its_last_call_is_taken_back():
    peer = Peer(answers=False)
    peer.send(call(1))
    for _ in range(2):
        peer.connection.finish()
    peer.take()
    before = peer.woken
    assert peer.send(frames.rst_stream(1, CANCEL)) == []
    assert peer.connection.ended
    assert peer.woken == before + 1, "the socket closes now, not when somebody looks again"


def test_a_client_that_never_says_that_it_knows_of_the_drain_is_ended_all_the_same():
    peer = Peer(answers=False)
    for _ in range(2):
        peer.connection.finish()
    assert [frames.number(one.payload[:4]) for one in peer.take() if one.kind == GOAWAY] == [STREAM_MASK, 0]
    assert peer.connection.ended


def test_a_connection_without_calls_is_sent_away_in_two_steps():
    limits = dataclasses.replace(LIMITS, idle_s=10.0, stall_s=5.0)
    peer = Peer(limits)
    peer.send(call(1))
    codes = []
    for _ in range(5):
        peer.connection.end_stalled()
        got = peer.take()
        codes.append(goaway_code(got))
        peer.send(*(frame(PING, ACK, 0, one.payload) for one in got if one.kind == PING))
    assert codes == [None, None, NO_ERROR, NO_ERROR, None]
    assert peer.connection.ended


@pytest.mark.parametrize(
    "begun",
    [b"\0\0\x10\0\0\0\0", headers(1, block()[:9], flags=0), data(1, b"\0\0", ends=True)[:-1]],
    ids=["frame", "block", "payload"],
)
def test_what_has_begun_and_comes_no_further_ends_the_connection(begun):
    peer = Peer()
    peer.send(headers(1) if begun[3] == DATA else b"", begun)
    peer.connection.end_stalled()
    peer.connection.end_stalled()
    assert peer.connection.ended


def test_a_client_that_sends_a_byte_now_and_then_is_ended_as_well():
    peer = Peer()
    slow = data(1, b"x" * 100)
    peer.send(headers(1))
    for at in range(3):
        peer.send(slow[at : at + 1])
        peer.connection.end_stalled()
    assert peer.connection.ended


def test_a_body_that_does_not_come_ends_its_stream_alone():
    peer = Peer()
    peer.send(headers(1), data(1, b"\0", ends=False))
    peer.connection.end_stalled()
    assert echoed(peer.send(call(3))) == {3: b"hello"}
    peer.connection.end_stalled()
    assert reset_codes(peer.take()) == {1: CANCEL}
    assert (peer.connection.ended, peer.connection.buffered) == (False, 0)


def test_an_answer_that_the_peer_does_not_take_ends_its_stream_alone():
    peer = Peer(settings={frames.INITIAL_WINDOW_SIZE: 0})
    peer.send(call(1))
    peer.connection.end_stalled()
    peer.connection.end_stalled()
    assert reset_codes(peer.take()) == {1: CANCEL}
    assert (peer.connection.unsent, peer.connection.buffered) == ({}, 0)


def test_ten_thousand_calls_in_a_row_leave_nothing_behind():
    peer = Peer()
    for stream in range(1, 20_001, 2):
        peer.send(call(stream))
        if stream % 100 == 1:
            peer.send(frames.window_update(0, 100 * 20))
    connection = peer.connection
    left = {
        name: len(value)
        for name, value in vars(connection).items()
        if isinstance(value, dict | list | set | bytes) and name != "_takers"
    }
    assert {name: size for name, size in left.items() if size} == {}
    assert len(connection.reader.known) == 1
