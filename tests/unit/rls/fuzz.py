"""Feeds a connection what no client should send, and holds that it always ends well. Run as a script for a long run:

python -m tests.unit.rls.fuzz --inputs 1000000 --seed 1

Half of the inputs are conversations of frames drawn by their grammar (kinds, streams, flags, sizes and blocks that are
often right), the others are conversations whose bytes were changed, or bytes without any sense.
"""

import argparse
import collections
import random
import sys
import time

import structlog

from data_plane.rls import frames
from data_plane.rls.frames import DATA, END_STREAM, HEADERS, PREFACE, Http2Limits, frame
from data_plane.rls.grpc import GrpcCall, GrpcHandler
from data_plane.rls.http2 import Http2Connection
from tests.unit.rls.harness import PATH, Frame, block, call, literal, message, parse

SMALL = Http2Limits(
    streams=8, header_bytes=2_000, body_bytes=400, buffered_bytes=3_000, window=70_000, patience=60, patience_per_s=1,
    remembered_blocks=4, remembered_bytes=300, stall_s=1.0, idle_s=3.0,
)  # fmt: skip
BLOCKS = [
    block(), block(("grpc-timeout", "1m")), block(("content-length", "8")), block(("grpc-encoding", "gzip")),
    block((":path", "/other")), block(("content-type", "text/plain")), block(leave_out=":path"), block(("Upper", "x")),
    block() + b"\x40\x01x\x7f\x81\x00" + b"y" * 256, block() + b"\xbe", b"\x3f\xe1\x1f" + block(), b"\x20" + block(),
    b"\x83\x86\x44\x12/test.Service/Echo" + literal(("content-type", "application/grpc")), b"\x83\x86\xbe", b"\xff\xff",
    literal(("x-trailer", "1")), literal((":status", "200")), block() + literal(("x-long", "z" * 120)) * 8,
    block()[:30], block()[30:], b"",
]  # fmt: skip
SETTINGS = [(1, 0), (1, 4_096), (2, 0), (3, 7), (4, 0), (4, 1), (4, 20), (4, 65_535), (4, 70_000), (5, 16_384), (6, 10)]
WRONG_SETTINGS = [(2, 2), (4, 2**31 - 1), (4, 2**31), (5, 1), (99, 5)]
NUMBERS = [0, 1, 5, 8, 20, 1_000, 65_535, 2**31 - 1, 2**31, 2**32 - 1]
MOST_S = 10.0
"""Far more than any input takes, on a machine with much else to do."""
MOST_KEPT_BYTES = SMALL.header_bytes + SMALL.buffered_bytes + frames.MAX_FRAME_BYTES + 9


class Fuzzed:
    """A connection under test, and what its peer may expect of it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.asked: list[GrpcCall] = []
        self.out = bytearray()
        handler = GrpcHandler({PATH.encode(): self._serve}, GrpcCall, 400)
        self.connection = Http2Connection(handler, SMALL, lambda: None)

    def _serve(self, asked: GrpcCall, said: bytes) -> None:
        choice = self.rng.random()
        if choice < 0.4:
            asked.reply(said)
        elif choice < 0.5:
            asked.fail(3, "no")
        elif choice < 0.52:
            raise LookupError
        else:
            self.asked.append(asked)

    def something_happens(self) -> None:
        """What is not the peer's doing."""
        choice = self.rng.random()
        if choice < 0.5 and self.asked:
            self.asked.pop(self.rng.randrange(len(self.asked))).reply(b"late" * self.rng.randrange(30))
        elif choice < 0.6:
            self.connection.end_stalled()
        elif choice < 0.63:
            self.connection.drain()
        elif choice < 0.65:
            self.connection.finish()

    def feed(self, data: bytes) -> None:
        """Give it ``data``, cut anywhere."""
        while data and not self.connection.ended:
            cut = self.rng.choice((len(data), len(data), self.rng.randrange(1, len(data) + 1), 1))
            self.connection.receive(data[:cut])
            data = data[cut:]
            self.out += self.connection.take()
            self.check()

    def check(self) -> None:
        """What holds at any time."""
        connection = self.connection
        assert len(connection.streams) <= SMALL.streams
        kept = sum(map(len, connection.bodies.values())) + sum(len(one.data) for one in connection.unsent.values())
        assert kept == connection.buffered <= SMALL.buffered_bytes
        assert kept + len(connection.unread) + len(connection.block or b"") <= MOST_KEPT_BYTES
        assert set(connection.unsent) <= set(connection.streams)
        assert set(connection.bodies) <= set(connection.streams)
        assert set(connection.in_line) <= set(connection.unsent)
        assert connection.reader.decoder.table_bytes <= 4_096
        assert len(connection.resets) <= 256

    def end(self) -> list[Frame]:
        """Bring it to an end by rules of the protocol, and see that nothing is left."""
        connection = self.connection
        if not connection.ended and connection.has_settings and not connection.unread and connection.block is None:
            connection.patience = 100
            connection.receive(frame(frames.PING, 0, 0, b"are you?"))
            self.out += connection.take()
            assert self.out.endswith(frame(frames.PING, frames.ACK, 0, b"are you?")), "it does not answer any more"
            for stream in list(connection.streams):
                connection.receive(frame(frames.RST_STREAM, 0, stream, b"\0\0\0\x08"))
            assert (connection.streams, connection.bodies, connection.unsent) == ({}, {}, {})
            assert (connection.credit, connection.in_line, connection.buffered) == ({}, {}, 0)
        for asked in self.asked:
            asked.reply(b"too late")
        connection.finish()
        for _ in range(3):
            connection.end_stalled()
        self.out += connection.take()
        assert connection.ended, "it waits for ever"
        return parse(bytes(self.out))


def drawn_frame(rng: random.Random, newest: int) -> tuple[bytes, int]:
    """A frame or several, and the newest stream then."""
    choice = rng.random()
    stream = rng.choice((newest, newest, max(newest - 2, 1), rng.randrange(1, newest + 1, 2)))
    if rng.random() < 0.04:
        stream = rng.choice((0, 2, newest + 2, rng.randrange(1, newest + 4)))
    if choice < 0.3:
        newest += 2 * rng.choice((1, 1, 1, 1, 2, 0))
        head = rng.choice(BLOCKS) if rng.random() < 0.3 else None
        return call(newest, rng.randbytes(rng.choice((0, 3, 300, 500))), head), newest
    if choice < 0.5:
        newest += 2 * rng.choice((1, 1, 1, 0))
        whole, flags = rng.choice(BLOCKS), rng.choice((4, 4, 4, 5, 0, 0x24, 0x0C, 0x2D, rng.randrange(256)))
        if flags & 0x20:
            whole = rng.choice(NUMBERS).to_bytes(4, "big") + b"\x10" + whole
        if flags & 0x08:
            whole = bytes((rng.choice((0, 3, 200)),)) + whole + bytes(3)
        sent = frame(HEADERS, flags, newest, whole)
        for _ in range(0 if flags & 4 else rng.randrange(3)):
            sent += frame(frames.CONTINUATION, rng.choice((0, 4)), newest, rng.choice(BLOCKS))
        return sent, newest
    if choice < 0.7:
        body = rng.choice((message(b"12345678"), b"", rng.randbytes(rng.randrange(600)), b"\0\0\0"))
        return frame(DATA, rng.choice((0, 0, END_STREAM, 8, 9, rng.randrange(256))), stream, body), newest
    if choice < 0.78:
        return frames.window_update(stream, rng.choice(NUMBERS)), newest
    if choice < 0.84:
        return frame(frames.RST_STREAM, 0, stream, rng.choice(NUMBERS).to_bytes(4, "big")), newest
    if choice < 0.9:
        values = SETTINGS if rng.random() < 0.9 else WRONG_SETTINGS
        return frames.settings(dict(rng.choices(values, k=rng.randrange(3)))), newest
    if choice < 0.97:
        return frame(frames.PING, rng.choice((0, 1)), 0, b"12345678"), newest
    size = rng.choice((0, 4, 5, 8, 9, 100, 16_384))
    return frame(rng.randrange(12), rng.randrange(256), stream, rng.randbytes(size)), newest


def conversation(rng: random.Random) -> bytes:
    sent = PREFACE + frames.settings(dict(rng.choices(SETTINGS, k=rng.choice((0, 0, 1, 2)))))
    newest = -1
    for _ in range(rng.choice((1, 3, 6, 12, 30))):
        more, newest = drawn_frame(rng, newest if newest > 0 else 1) if newest > 0 else (call(1), 1)
        sent += more
    return sent


def changed(rng: random.Random, sent: bytes) -> bytes:
    """With a few bytes other than they were."""
    data = bytearray(sent)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(rng.choice((0, len(PREFACE))), len(data)) if len(data) > len(PREFACE) else 0
        what = rng.random()
        if what < 0.4:
            data[at] = rng.randrange(256)
        elif what < 0.55:
            data[at] ^= 1 << rng.randrange(8)
        elif what < 0.7:
            del data[at : at + rng.choice((1, 9, 20))]
        elif what < 0.85:
            data[at:at] = rng.randbytes(rng.choice((1, 9, 30)))
        else:
            data[at:at] = data[max(0, at - 40) : at]
    return bytes(data)


def one_input(seed: int) -> collections.Counter[str]:
    """Run one input; what came of it. Raises ``AssertionError``."""
    rng = random.Random(seed)
    kind = rng.random()
    sent = conversation(rng)
    if kind > 0.9:
        sent = PREFACE + frames.settings({}) + rng.randbytes(rng.randrange(400))
    elif kind > 0.5:
        sent = changed(rng, sent)
    fuzzed = Fuzzed(rng)
    while sent:
        size = rng.randrange(1, len(sent) + 1)
        fuzzed.feed(sent[:size])
        sent = sent[size:]
        fuzzed.something_happens()
        fuzzed.check()
    got = fuzzed.end()
    seen = collections.Counter(one.kind for one in got)
    return collections.Counter(
        inputs=1, raw=kind > 0.5, answers=sum(one.kind == HEADERS and bool(one.flags & END_STREAM) for one in got),
        resets=seen[frames.RST_STREAM], ended=fuzzed.connection.ended,
    )  # fmt: skip


def run(inputs: int, seed: int) -> collections.Counter[str]:
    """So many inputs, from ``seed`` on."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    total: collections.Counter[str] = collections.Counter()
    try:
        for nth in range(inputs):
            began = time.monotonic()
            try:
                total += one_input(seed + nth)
            except BaseException:
                sys.stderr.write(f"seed {seed + nth}\n")
                raise
            took_s = time.monotonic() - began
            assert took_s < MOST_S, f"seed {seed + nth} took {took_s:.2f} s"
    finally:
        structlog.reset_defaults()
    return total


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    began, total = time.monotonic(), collections.Counter()
    for at in range(0, arguments.inputs, 10_000):
        total += run(min(10_000, arguments.inputs - at), arguments.seed + at)
        sys.stdout.write(f"{time.monotonic() - began:.0f} s: {dict(total)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
