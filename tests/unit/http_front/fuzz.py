"""Feeds a front what no client should send, and holds that it always ends well. Run as a script for a long run:

python -m tests.unit.http_front.fuzz --inputs 1000000 --seed 1
"""

import argparse
import collections
import logging
import random
import time

from tests.unit.http_front.harness import SMALL, Client, DoorPath, Response, get, parse_responses, post
from tests.unit.http_front.requests_table import REFUSED
from tidegate.http_front.exchange import Exchange
from tidegate.http_front.front import Front

CHUNKED = b"POST /v1/check HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\nX: y\r\n\r\n"
GOOD = [
    post(),
    post(b"/v1/check/batch", b"[" + b"{}," * 100 + b"{}]"),
    post(b"/v1/check", b"{}", b"Expect: 100-continue"),
    get(),
    get(b"/v1/authorize/a?b=c", b"X-API-Key: tg_x", b"Content-Length: 0"),
    get(b"/v1/authorize", b"Connection: close"),
    get(b"/v1/authorize").replace(b"GET", b"HEAD"),
    get(b"/v1/authorize").replace(b"1.1", b"1.0"),
    b"\r\n" + get(),
    CHUNKED,
    get(b"/healthz"),
]
CORPUS = GOOD + [request for _, request in REFUSED.values() if len(request) < 1000]
MORSELS = [
    b"\r\n", b"\r", b"\n", b"\r\n\r\n", b" ", b"\t", b"\0", b":", b"\xff", b"Host: n\r\n", b"Content-Length: 5\r\n",
    b"Content-Length: 99999999\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"ffffffff\r\n",
    b"0\r\n\r\n", b"HTTP/1.1", b"HTTP/1.0", b"POST /v1/check ", b"GET /v1/authorize/", b"x" * 700, b"X: y\r\n" * 25,
    b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\nConnection: upgrade\r\n", b"/healthz",
]  # fmt: skip
MOST_UNREAD_BYTES = 64 * 1024


class FickleDoor:
    """Answers at once, later, in any order, or fails."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._kept: list[Exchange] = []

    def check(self, exchange: Exchange) -> None:
        choice = self._rng.random()
        if choice < 0.25:
            exchange.respond(200, b"", exchange.body)
        elif choice < 0.5:
            exchange.respond_ok(b"", exchange.body)
        elif choice < 0.52:
            raise LookupError("the handler failed")
        else:
            self._kept.append(exchange)

    check_batch = authorize = check

    def answer_some(self, share: float) -> None:
        self._rng.shuffle(self._kept)
        for _ in range(int(len(self._kept) * share)):
            exchange = self._kept.pop()
            if self._rng.random() < 0.5:
                exchange.respond(200, b"x-a: b\r\n", b"late")
            else:
                exchange.respond_ok(b"x-a: b\r\n", b"late")

    def answer_all(self) -> None:
        while self._kept:
            self.answer_some(1.0)


def mutate(rng: random.Random) -> bytes:
    """A stream of requests, most of them with something wrong."""
    good = rng.random() < 0.8
    stream = bytearray(b"".join(rng.choice(GOOD if good else CORPUS) for _ in range(rng.randint(1, 6))))
    for _ in range(rng.choice((0, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(stream) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            stream[at:at] = rng.choice(MORSELS)
        elif kind == 1:
            del stream[at : at + rng.randint(1, 12)]
        elif kind == 2 and at < len(stream):
            stream[at] = rng.randrange(256)
        elif kind == 3:
            stream[at:at] = stream[at : at + rng.randint(1, 60)]
        else:
            stream[at:at] = rng.randbytes(rng.randint(1, 8))
    return bytes(stream)


def split(rng: random.Random, stream: bytes) -> list[bytes]:
    """Cut at a few places, or at all."""
    if rng.random() < 0.02:
        return [bytes([byte]) for byte in stream]
    cuts = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.choice((0, 0, 1, 2, 5))))
    return [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) if a < b]


def feed(front: Front, handler: FickleDoor, rng: random.Random, stream: bytes) -> Client:
    """One connection from beginning to end. Raises if it breaks, hangs, hoards, or sends what is not HTTP."""
    client = Client(handler, front=front)
    for part in split(rng, stream):
        client.send(part)
        hoard = client.connection
        assert len(hoard.reader.unread) <= MOST_UNREAD_BYTES
        assert len(hoard.queue) <= SMALL.pipeline_depth + 1
        if rng.random() < 0.3:
            handler.answer_some(0.5)
        if rng.random() < 0.02:
            client.front.on_tick()
        if rng.random() < 0.02 and not client.transport.closing:
            client.connection.pause_writing()
            handler.answer_some(0.5)
            client.connection.resume_writing()
        if rng.random() < 0.005:
            client.lose()
            break
    handler.answer_all()
    ending = rng.random()
    if not client.transport.closing:
        if ending < 0.2 and not client.connection.eof_received():
            client.transport.close()
        elif ending < 0.3:
            client.connection.shutdown()
    client.pass_s(SMALL.request_s + SMALL.linger_s + 1)
    client.pass_s(SMALL.keep_alive_s + 1)
    assert client.transport.closing, "the connection hangs"
    client.lose()
    assert not client.state.connections
    assert not client.connection.queue
    assert not front.unfinished_bytes
    return client


def check_responses(client: Client) -> list[Response]:
    """What was sent is a sequence of whole HTTP responses (answers to HEAD aside, which need their requests)."""
    sent = bytes(client.transport.sent).replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    return parse_responses(sent)


def run(inputs: int, seed: int) -> collections.Counter[int]:
    """Feed ``inputs`` streams, each followed by a good request on a fresh connection; counts the statuses."""
    rng = random.Random(seed)
    handler = FickleDoor(rng)
    front = Front(DoorPath(handler), SMALL, wall_s=lambda: 1_700_000_000.0)
    statuses: collections.Counter[int] = collections.Counter()
    for number in range(inputs):
        stream = mutate(rng)
        try:
            client = feed(front, handler, rng, stream)
            if b"HEAD" not in stream:
                for response in check_responses(client):
                    statuses[response.status] += 1
            fresh = Client(handler, front=front).send(post())
            handler.answer_all()
            assert fresh.statuses() in ([200], [500]), "a fresh connection is not served"
            fresh.lose()
        except BaseException:
            print(f"input {number} of seed {seed}: {stream!r}")  # noqa: T201 - a finding must be repeatable
            raise
    return statuses


def main() -> None:
    """The long run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    began_s = time.monotonic()
    statuses = run(options.inputs, options.seed)
    took_s = time.monotonic() - began_s
    print(f"{options.inputs} inputs in {took_s:.0f} s; answers: {dict(sorted(statuses.items()))}")  # noqa: T201


if __name__ == "__main__":
    main()
