"""A front without sockets: a transport that records, a loop that runs things at once, answers when told."""

from collections.abc import Sequence
from typing import Any, Protocol

import httptools
from uvicorn import Config
from uvicorn.server import ServerState

from data_plane.http.decision_handler import DecisionFastPath
from tidegate.http_front.connection import Connection
from tidegate.http_front.exchange import Exchange, Route
from tidegate.http_front.front import Front
from tidegate.http_front.limits import FrontLimits
from tidegate.http_front.serving import protocol_class

SMALL = FrontLimits(
    head_bytes=2048,
    target_bytes=512,
    header_fields=20,
    body_bytes=4000,
    app_unread_bytes=500,
    pipeline_depth=4,
    in_flight_bytes=2000,
    keep_alive_s=4,
    request_s=2,
    write_s=3,
    linger_s=1,
    tick_s=1,
    body_bytes_a_s=100,
    unfinished_bytes=1_000_000,
)
SMALL_BODIES = (1000, 5000, 1000)


class DecisionHandler(Protocol):
    """Stands for what decides."""

    def check(self, exchange: Any, /) -> None: ...

    def check_batch(self, exchange: Any, /) -> None: ...

    def authorize(self, exchange: Any, /) -> None: ...


class DoorPath:
    """A node's fast path, in front of whatever handler the test has put there."""

    def __init__(self, handler: DecisionHandler, bodies: Sequence[int] = SMALL_BODIES) -> None:
        self.routes: Sequence[Route] = (
            Route("check", bodies[0], Exchange, handler.check),
            Route("check_batch", bodies[1], Exchange, handler.check_batch),
            Route("authorize", bodies[2], Exchange, handler.authorize),
        )

    find = DecisionFastPath.find
    too_much_status = DecisionFastPath.too_much_status


class FakeTransport:
    """Records what is written; refuses, as uvloop does, what a closed transport can't do."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.reading = True
        self.closing = self.aborted = self.eof_sent = False
        self.protocol: Any = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.7", 4711) if name == "peername" else default

    def write(self, data: bytes) -> None:
        assert not self.closing, "wrote to a closed transport"
        assert not self.eof_sent, "wrote after the end"
        self.sent += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof_sent = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def pause_reading(self) -> None:
        assert not self.closing
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol


class _Handle:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def add_done_callback(self, callback: Any) -> None:
        callback(self)


class EagerLoop:
    """Runs a task to its end at once, and what is to come soon; its timers never fire (tests drive the beat)."""

    def call_soon(self, callback: Any, *args: Any) -> None:
        callback(*args)

    def call_later(self, *_: Any) -> _Handle:
        return _Handle()

    def create_task(self, coroutine: Any) -> _Handle:
        try:
            coroutine.send(None)
        except StopIteration:
            return _Handle()
        coroutine.close()
        raise AssertionError("the test app must not wait")


class SavingDoor:
    """Keeps exchanges until the test answers them."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    def check(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

    check_batch = authorize = check


class EchoDoor:
    """Answers at once with what it was asked."""

    def check(self, exchange: Exchange) -> None:
        exchange.respond(200, b"content-type: text/plain\r\n", echo(exchange))

    check_batch = authorize = check


def echo(exchange: Exchange) -> bytes:
    return exchange.method + b" " + exchange.path + b" " + exchange.body


async def elsewhere(scope: Any, receive: Any, send: Any) -> None:
    """Stands for FastAPI: says which path it was asked for."""
    body = b"elsewhere " + scope["path"].encode("utf-8", "surrogateescape")
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Client:
    """One connection to a front. ``responses()`` parses what was sent, which proves that it is HTTP."""

    def __init__(self, handler: DecisionHandler, limits: FrontLimits = SMALL, *, front: Front | None = None) -> None:
        self.front = front or Front(DoorPath(handler), limits, wall_s=lambda: 1_700_000_000.0)
        self.state = ServerState()
        config = Config(elsewhere, log_config=None, lifespan="off", ws="none")
        config.load()
        self.transport = FakeTransport()
        self.connection: Connection = protocol_class(self.front)(  # type: ignore[call-arg]
            config=config, server_state=self.state, app_state={}, _loop=EagerLoop()
        )
        self.transport.protocol = self.connection
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]

    def send(self, *parts: bytes) -> "Client":
        """Deliver bytes as a transport would: not while closing. (What is paused still may deliver one read.)"""
        for part in parts:
            if not self.transport.closing:
                self.transport.protocol.data_received(part)
        return self

    def pass_s(self, seconds: int) -> None:
        for _ in range(seconds + 1):
            self.front.on_tick()

    def lose(self) -> None:
        self.transport.closing = True
        self.transport.protocol.connection_lost(None)

    def responses(self, *, heads: int = 0) -> list["Response"]:
        return parse_responses(bytes(self.transport.sent), heads=heads)

    def statuses(self) -> list[int]:
        return [response.status for response in self.responses()]


class Response:
    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.complete = False

    def __repr__(self) -> str:
        return f"<{self.status} {self.body!r}>"


class _Collector:
    def __init__(self) -> None:
        self.responses: list[Response] = []
        self.parser: Any = None

    def on_message_begin(self) -> None:
        self.responses.append(Response())

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode().lower()
        assert key not in self.responses[-1].headers, f"{key} twice"
        self.responses[-1].headers[key] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.responses[-1].status = self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.responses[-1].body += body

    def on_message_complete(self) -> None:
        self.responses[-1].complete = True


def parse_responses(sent: bytes, *, heads: int = 0) -> list[Response]:
    """Parse with llhttp. ``heads`` answers to HEAD come first: they have a length but no body."""
    collector = _Collector()
    for _ in range(heads):
        head, _, sent = sent.partition(b"\r\n\r\n")
        without_length = b"\r\n".join(
            line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")
        )
        collector.parser = httptools.HttpResponseParser(collector)
        collector.parser.feed_data(without_length + b"\r\ncontent-length: 0\r\n\r\n")
    collector.parser = httptools.HttpResponseParser(collector)
    collector.parser.feed_data(sent)
    assert all(response.complete for response in collector.responses), "a response was cut off"
    return collector.responses


def post(path: bytes = b"/v1/check", body: bytes = b"{}", *fields: bytes) -> bytes:
    lines = [b"POST " + path + b" HTTP/1.1", b"Host: node", b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def get(path: bytes = b"/v1/authorize", *fields: bytes) -> bytes:
    return b"\r\n".join([b"GET " + path + b" HTTP/1.1", b"Host: node", *fields]) + b"\r\n\r\n"
