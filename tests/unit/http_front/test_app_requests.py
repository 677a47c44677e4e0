"""Requests that the application answers: bodies and responses in parts, held back both ways, and every way to end."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from uvicorn import Config
from uvicorn.server import ServerState

from tests.unit.http_front.harness import SMALL, DoorPath, EchoDoor, FakeTransport, Response, get, parse_responses, post
from tidegate.http_front.front import Front
from tidegate.http_front.serving import protocol_class

Application = Callable[[Any, Any, Any], Awaitable[None]]


class AppClient:
    """One connection to an application, on the test's own loop."""

    def __init__(self, application: Application, limits: Any = SMALL, *, front: Front | None = None) -> None:
        self.front = front or Front(DoorPath(EchoDoor()), limits, wall_s=lambda: 1_700_000_000.0)
        self.state = ServerState()
        settings = Config(application, log_config=None, lifespan="off", ws="none")
        settings.load()
        self.transport = FakeTransport()
        self.connection: Any = protocol_class(self.front)(settings, self.state, {})  # type: ignore[call-arg]
        self.connection.connection_made(self.transport)

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            if not self.transport.closing:
                self.connection.data_received(part)
            await settled()

    async def pass_s(self, seconds: float) -> None:
        for _ in range(int(seconds) + 1):
            self.front.on_tick()
        await settled()

    async def lose(self) -> None:
        self.transport.closing = True
        self.connection.connection_lost(None)
        await settled()

    def responses(self, *, heads: int = 0) -> list[Response]:
        return parse_responses(bytes(self.transport.sent), heads=heads)


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def body_of(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message["body"]
        more = message["more_body"]
    return body


async def respond(send: Any, body: bytes, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, await body_of(receive))


CHUNKED = b"POST /x HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [post(b"/x", b"hello"), CHUNKED + b"2\r\nhe\r\n3;a=b\r\nllo\r\n0\r\nX-A: b\r\n\r\n"],
    ids=["length", "chunked"],
)
async def test_a_body_comes_whole_however_it_is_split_and_the_connection_goes_on(request_bytes):
    for step in (1, 7, 1000):
        client = AppClient(echo)
        twice = request_bytes * 2 + get()
        await client.send(*(twice[at : at + step] for at in range(0, len(twice), step)))
        assert [one.body for one in client.responses()] == [b"hello", b"hello", b"GET /v1/authorize "]


async def test_the_scope_says_what_was_asked():
    scopes = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await respond(send, b"")

    client = AppClient(application)
    await client.send(post(b"/a%20b/%C3%A4?c=%20d", b"", b"X-Two:  words  ", b"x-two: more"))
    await client.send(get(b"http://elsewhere:1/p?q"), get(b"http://elsewhere"), get(b"https://elsewhere?q=/"))
    await client.send(b"OPTIONS * HTTP/1.1\r\nHost: n\r\n\r\n", b"GET /old HTTP/1.0\r\n\r\n")
    first = scopes[0]
    assert (first["method"], first["path"], first["raw_path"]) == ("POST", "/a b/ä", b"/a%20b/%C3%A4")
    assert (first["query_string"], first["http_version"], first["scheme"]) == (b"c=%20d", "1.1", "http")
    assert first["headers"][-2:] == [(b"x-two", b"words"), (b"x-two", b"more")]
    assert first["client"] == ("192.0.2.7", 4711)
    asked = [(scope["path"], scope["query_string"]) for scope in scopes[1:]]
    assert asked == [("/p", b"q"), ("/", b""), ("/", b"q=/"), ("*", b""), ("/old", b"")]
    assert scopes[-1]["http_version"] == "1.0"


async def test_the_client_is_held_back_while_the_application_does_not_read():
    goes_on = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await goes_on.wait()
        await respond(send, str(len(await body_of(receive))).encode())

    client = AppClient(application)
    await client.send(post(b"/x", b"x" * 3000)[:-3000], b"x" * 1000)
    assert not client.transport.reading
    await client.pass_s(100)  # it is not the client that is slow
    assert not client.transport.closing
    goes_on.set()
    await settled()
    assert client.transport.reading
    await client.send(b"x" * 2000)
    assert client.responses()[0].body == b"3000"


async def test_the_application_is_held_back_while_the_client_does_not_read():
    sent = 0

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200})
        for sent in range(1, 4):
            await send({"type": "http.response.body", "body": b"part", "more_body": sent < 3})

    client = AppClient(application)
    client.connection.data_received(get(b"/x") + get())
    client.connection.pause_writing()
    await settled()
    assert sent == 0
    client.connection.resume_writing()
    await settled()
    first, second = client.responses()
    assert (first.headers["transfer-encoding"], first.body) == ("chunked", b"partpartpart")
    assert second.body == b"GET /v1/authorize "


class Narrow(FakeTransport):
    """Full after each answer of the fast path."""

    def write(self, data: bytes) -> None:
        super().write(data)
        if b"/v1/" in data:
            self.protocol.pause_writing()


@pytest.mark.parametrize("takes", [True, False])
async def test_the_application_is_not_asked_before_a_client_has_room_for_it(takes: bool):
    client = AppClient(streaming := Streaming())
    client.transport.__class__, client.transport.protocol = Narrow, client.connection
    await client.send(get() + get(b"/x"))
    assert not streaming.asked
    if takes:
        client.connection.resume_writing()
        await settled()
    await client.pass_s(SMALL.write_s)
    assert (streaming.asked, client.transport.aborted) == (takes, not takes)


async def test_a_client_that_takes_nothing_is_dropped():
    client = AppClient(forever := Streaming())
    await client.send(get(b"/x"))
    client.connection.pause_writing()
    await client.pass_s(SMALL.write_s)
    assert client.transport.aborted
    await client.lose()
    assert forever.ended


class Streaming:
    """Answers with a line at once, then waits for its client to leave."""

    def __init__(self) -> None:
        self.asked = self.ended = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked = True
        await receive()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"line", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        self.ended = True


async def test_a_stream_lasts_and_hears_of_its_clients_end():
    client = AppClient(streaming := Streaming())
    await client.send(get(b"/x"))
    await client.pass_s(1000)
    assert client.transport.sent.endswith(b"4\r\nline\r\n")
    assert not client.transport.closing
    await client.lose()
    assert streaming.ended
    assert client.state.connections == set()


async def test_who_sends_no_more_may_be_answered_yet():
    client = AppClient(streaming := Streaming())
    await client.send(get(b"/x"))
    assert client.connection.eof_received() is True
    await settled()
    assert streaming.ended
    assert client.responses()[0].body == b"line"
    assert client.transport.closing


async def test_requests_behind_one_wait_unread():
    asked = 0
    goes_on = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal asked
        asked += 1
        await goes_on.wait()
        await respond(send, b"")

    client = AppClient(application)
    await client.send(get(b"/x") * 30)
    assert (asked, client.transport.reading) == (1, False)
    goes_on.set()
    for _ in range(30):
        await settled()
    assert (asked, len(client.responses()), client.transport.reading) == (30, 30, True)


async def test_an_answer_before_the_body_is_the_last_one():
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"no", 401)

    client = AppClient(application)
    await client.send(post(b"/x", b"x" * 100)[:-50], b"x" * 50 + get(b"/smuggled"))
    (answer,) = client.responses()
    assert (answer.status, answer.headers["connection"]) == (401, "close")
    assert client.transport.eof_sent
    await client.pass_s(SMALL.linger_s)
    assert client.transport.closing


async def test_whoever_waits_to_send_is_told_to_go_on_only_when_the_application_reads():
    reads = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await reads.wait()
        await respond(send, await body_of(receive))

    client = AppClient(application)
    await client.send(post(b"/x", b"hello", b"Expect: 100-continue")[:-5])
    assert client.transport.sent == b""
    reads.set()
    await settled()
    assert client.transport.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(b"hello")
    assert client.transport.sent.endswith(b"\r\n\r\nhello")


async def test_a_body_may_take_long_while_it_comes_fast_enough():
    client = AppClient(echo)
    whole = post(b"/x", b"x" * 3000)
    at = len(whole) - 3000
    await client.send(whole[:at])
    for _ in range(12):
        await client.send(whole[at : at + 250])
        at += 250
        await client.pass_s(0)
    assert len(client.responses()[0].body) == 3000


@pytest.mark.parametrize("head", [post(b"/x", b"x" * 3000)[:-3000], CHUNKED + b"ff\r\n"])
async def test_a_body_that_trickles_is_given_up(head):
    lost = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        try:
            await body_of(receive)
        except ClientDisconnect:
            lost.append(True)
            raise

    client = AppClient(application)
    await client.send(head)
    for _ in range(int(SMALL.request_s) + 2):
        await client.send(b"x")
        await client.pass_s(0)
    (answer,) = client.responses()
    assert (answer.status, lost) == (408, [True])
    await client.pass_s(SMALL.linger_s)
    assert client.transport.closing


async def test_a_bad_chunk_is_refused_before_the_answer_and_cuts_it_off_after():
    client = AppClient(echo)
    await client.send(CHUNKED, b"5\r\nhello\r\n", b"zz\r\n")
    assert [one.status for one in client.responses()] == [400]

    async def early(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        await body_of(receive)

    begun = AppClient(early)
    await begun.send(CHUNKED, b"5\r\nhello\r\n", b"zz\r\n")
    assert begun.transport.aborted


async def test_a_body_in_chunks_is_bounded():
    client = AppClient(echo, replace(SMALL, body_bytes=100))
    await client.send(CHUNKED, b"32\r\n" + b"x" * 50 + b"\r\n", b"33\r\n")
    assert [one.status for one in client.responses()] == [413]


async def test_head_and_codes_without_a_body():
    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/none":
            await send({"type": "http.response.start", "status": 204})
            await send({"type": "http.response.body"})
        else:
            await respond(send, b"hello")

    client = AppClient(application)
    await client.send(get(b"/x").replace(b"GET", b"HEAD"), get(b"/none"), get(b"/x"))
    assert client.transport.sent.count(b"content-length: 5") == 2
    assert client.transport.sent.count(b"hello") == 1
    assert [one.status for one in client.responses(heads=1)] == [200, 204, 200]
    assert b"transfer-encoding" not in client.transport.sent


async def test_old_clients_get_no_chunks():
    old = b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"

    async def parts(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        for more in (True, False):
            await send({"type": "http.response.body", "body": b"part", "more_body": more})

    client = AppClient(parts)
    await client.send(old)
    assert b"chunked" not in client.transport.sent
    assert client.transport.sent.endswith(b"\r\n\r\npartpart")
    assert client.transport.closing
    staying = AppClient(echo)
    await staying.send(old)
    assert staying.responses()[0].headers["connection"] == "keep-alive"
    assert not staying.transport.closing


@pytest.mark.parametrize("begun", [False, True])
async def test_an_application_that_fails_costs_one_request(begun, caplog):
    async def application(scope: Any, receive: Any, send: Any) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200})
        raise LookupError("a bug, with a secret")

    client = AppClient(application)
    with caplog.at_level(logging.CRITICAL):
        await client.send(get(b"/x"))
    if begun:
        assert client.transport.aborted
    else:
        assert [one.status for one in client.responses()] == [500]
        assert b"secret" not in client.transport.sent


@pytest.mark.parametrize(
    "header", [(b"x", b"a\r\nb: c"), (b"x y", b"z"), (b"", b"z"), (b"x", b"\0")], ids=["split", "blank", "none", "nul"]
)
async def test_no_response_can_be_split(header, caplog):
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"", 200, header)

    client = AppClient(application)
    with caplog.at_level(logging.CRITICAL):
        await client.send(get(b"/x"))
    assert [one.status for one in client.responses()] == [500]


@pytest.mark.parametrize("length", [b"3", b"5"])
async def test_a_response_is_as_long_as_it_says(length, caplog):
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": b"four"})

    client = AppClient(application)
    with caplog.at_level(logging.CRITICAL):
        await client.send(get(b"/x"))
    assert client.transport.aborted


async def test_a_client_that_hangs_up_in_mid_body_is_no_fault(caplog):
    client = AppClient(echo)
    await client.send(post(b"/x", b"hello")[:-2])
    await client.lose()
    assert caplog.records == []
    assert client.state.tasks == set()


async def test_stopping_waits_for_the_answer_and_the_body_that_it_needs():
    client = AppClient(echo)
    await client.send(post(b"/x", b"hello")[:-2])
    client.connection.shutdown()
    assert not client.transport.closing
    await client.send(b"lo")
    (answer,) = client.responses()
    assert (answer.body, answer.headers["connection"]) == (b"hello", "close")
    assert client.transport.closing


async def test_a_request_that_is_cancelled_ends_its_connection():
    client = AppClient(Streaming())
    await client.send(get(b"/x"))
    (task,) = client.state.tasks
    task.cancel()
    await settled()
    assert client.transport.aborted


async def test_a_drained_front_answers_once_more():
    client = AppClient(echo)
    await client.send(get(b"/x"))
    client.front.drain()
    await client.send(get(b"/x"))
    assert [one.headers.get("connection") for one in client.responses()] == [None, "close"]
    assert client.transport.closing


async def test_pipelines_take_turns_with_each_other_and_hold_up_nobody():
    began: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        began.append(scope["path"])
        await respond(send, b"")

    first = AppClient(application)
    clients = [first, *(AppClient(application, front=first.front) for _ in range(4))]
    for number, client in enumerate(clients):
        client.connection.data_received(get(b"/%d" % number) * 5)
    while len(began) < 15:  # in the midst of it somebody comes who waits for his answer
        await asyncio.sleep(0)
    AppClient(application, front=first.front).connection.data_received(get(b"/new"))
    await settled()
    assert began.index("/new") <= 18
    for _ in range(10):
        await settled()
    assert [len(client.responses()) for client in clients] == [5] * 5
    assert sorted(began[:5]) == sorted(began[5:10]) == [f"/{number}" for number in range(5)]
