"""What is not HTTP as RFC 9112 has it is refused with a problem and the connection closed, whoever it was meant for."""

import json
from dataclasses import replace

import pytest

from tests.unit.http_front.harness import SMALL, Client, EchoDoor, SavingDoor, get, post
from tests.unit.http_front.requests_table import REFUSED
from tidegate.http_front.chunked import ChunkedBody
from tidegate.http_front.limits import FrontLimits
from tidegate.http_front.responses import Refusal

FEW = replace(SMALL, connections=2)
SECOND = get(b"/v1/authorize/second")


def assert_refused(client: Client, status: int) -> None:
    (answer,) = client.responses()
    assert answer.status == status
    problem = json.loads(answer.body)
    assert set(problem) == {"title", "status", "detail"}
    assert problem["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["connection"] == "close"
    client.pass_s(SMALL.linger_s)
    assert client.transport.closing


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_and_nothing_behind_it_is_served(name: str) -> None:
    status, request = REFUSED[name]
    client = Client(EchoDoor()).send(request + SECOND)
    assert_refused(client, status)


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_byte_by_byte(name: str) -> None:
    status, request = REFUSED[name]
    assert_refused(Client(EchoDoor()).send(*(bytes([byte]) for byte in request)), status)


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_when_it_was_meant_for_another_route(name: str) -> None:
    status, request = REFUSED[name]
    other = request.replace(b"/v1/check", b"/v1/other").replace(b"/v1/authorize", b"/v1/other")
    assert_refused(Client(EchoDoor()).send(other + SECOND), status)


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_after_a_good_request_and_in_its_turn(name: str) -> None:
    status, request = REFUSED[name]
    handler = SavingDoor()
    client = Client(handler).send(post() + request)
    assert client.transport.sent == b""
    handler.exchanges[0].respond(200, b"", b"first")
    assert client.statuses() == [200, status]


@pytest.mark.parametrize(
    ("status", "request_bytes"),
    [
        (414, b"GET /v1/elsewhere/" + b"a" * 600),
        (414, get(b"/v1/elsewhere/" + b"a" * 600)),
        (431, get(b"/v1/elsewhere", b"X-A: " + b"b" * 3000)),
        (431, get(b"/v1/elsewhere", b"X-A: " + b"b" * 3000)[:-4]),
        (431, get(b"/v1/elsewhere", *[b"X-%d: b" % number for number in range(30)])),
        # Forward-auth answers nothing that a gateway could let pass: what is too long is a refusal like any other.
        (403, b"GET /v1/authorize/" + b"a" * 600),
        (403, get(b"/v1/authorize/" + b"a" * 600)),
        (403, get(b"/v1/authorize", b"X-A: " + b"b" * 3000)),
        (403, get(b"/v1/authorize", b"X-A: " + b"b" * 3000)[:-4]),
        (403, get(b"/v1/authorize", *[b"X-%d: b" % number for number in range(30)])),
        (431, get(b"/healthz", b"X-A: " + b"b" * 3000)),
        (413, post(b"/v1/check", b"x" * 1001)[:-1001]),
        (413, post(b"/v1/check/batch", b"x" * 5001)[:-5001]),
        (403, post(b"/v1/authorize/a", b"x" * 1001)),
        (413, b"POST /v1/check HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n"),
        (403, b"POST /v1/authorize HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n"),
        (
            403,
            b"POST /v1/authorize HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"1;a=bcdefgh\r\nx\r\n" * 900,
        ),
        (413, b"POST /v1/check HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n3E8\r\n"),
        (
            431,
            b"POST /v1/check HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1;a=bcdefgh\r\nx\r\n" * 900,
        ),
    ],
)
def test_what_is_too_long_is_refused_while_it_arrives(status: int, request_bytes: bytes) -> None:
    assert_refused(Client(EchoDoor()).send(request_bytes), status)


@pytest.mark.parametrize(("path", "size"), [(b"/v1/check", 1000), (b"/v1/check/batch", 5000)])
def test_the_longest_body_is_served(path: bytes, size: int) -> None:
    (answer,) = Client(EchoDoor()).send(post(path, b"x" * size)).responses()
    assert answer.body == b"POST " + path + b" " + b"x" * size


def test_what_still_comes_after_a_refusal_is_discarded_for_a_while() -> None:
    client = Client(EchoDoor()).send(post(b"/v1/check", b"x" * 1001)[:-1001])
    sent = bytes(client.transport.sent)
    client.send(b"x" * 500, b"x" * 501, SECOND)
    assert client.transport.sent == sent
    assert client.transport.eof_sent
    assert not client.transport.closing
    client.pass_s(SMALL.linger_s)
    assert client.transport.closing


def test_a_refused_head_request_gets_no_body() -> None:
    client = Client(EchoDoor()).send(b"HEAD /v1/authorize HTTP/1.1\r\n\r\n")
    head, _, body = bytes(client.transport.sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert body == b""


def test_too_many_connections_are_refused_while_all_are_being_answered() -> None:
    handler = SavingDoor()
    first = Client(handler, FEW).send(post())
    second = Client(handler, front=first.front).send(post())
    crowded = Client(handler, front=first.front)
    assert_refused(crowded, 503)
    for exchange in handler.exchanges:
        exchange.respond(200, b"", b"")
    assert first.statuses() == second.statuses() == [200]


def test_who_has_not_sent_a_request_makes_room_for_who_comes() -> None:
    silent = Client(EchoDoor(), FEW)
    slow = Client(EchoDoor(), front=silent.front).send(post()[:-1])
    fresh = Client(EchoDoor(), front=silent.front)
    assert slow.transport.aborted  # half a request has less time than none
    assert not silent.transport.closing
    assert fresh.send(post()).statuses() == [200]


def test_parts_of_requests_are_bounded_over_all_connections() -> None:
    first = Client(EchoDoor(), replace(SMALL, unfinished_bytes=10_000))
    clients = [first, *(Client(EchoDoor(), front=first.front) for _ in range(30))]
    for client in clients:
        client.send(post(b"/v1/check", b"x" * 900)[:-1])
        assert first.front.unfinished_bytes <= 10_000
    left = [client for client in clients if not client.transport.closing]
    assert len(left) >= 8, "nobody is dropped who fits"
    for client in clients:
        client.lose()
    assert first.front.unfinished_bytes == 0


def test_no_detail_echoes_what_was_sent() -> None:
    for status, request in REFUSED.values():
        client = Client(EchoDoor()).send(request.replace(b"X-A", b"X-secret"))
        assert client.statuses() == [status]
        assert b"secret" not in client.transport.sent


def test_a_long_head_byte_by_byte_is_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look takes as long as the head: with one a byte, a byte a millisecond would take all of a node's time."""
    client, looks = Client(EchoDoor(), FrontLimits()), []
    look = client.front.heads.check_beginning
    monkeypatch.setattr(client.front.heads, "check_beginning", lambda data: looks.append(data) or look(data))
    request = get(b"/v1/authorize/long", *[b"X-%d: %b" % (number, b"b" * 600) for number in range(90)])
    client.send(request[:5000], *(bytes([byte]) for byte in request[5000:-1]))
    assert len(looks) < 30
    assert client.transport.sent == b""
    client.send(request[-1:])
    client.send(*(bytes([byte]) for byte in post()))
    assert client.statuses() == [200, 200]


def test_a_long_head_byte_by_byte_is_refused_at_its_bound() -> None:
    limits = FrontLimits()
    client = Client(EchoDoor(), limits)
    client.send(get(b"/v1/other", b"X-A: " + b"b" * (limits.head_bytes - 100))[:-4])
    missing = limits.head_bytes - len(client.connection.reader.unread)
    client.send(*[b"b"] * missing)
    assert client.transport.sent == b""
    client.send(b"b")
    assert client.statuses() == [431]


def test_a_body_in_tiny_chunks_is_refused_and_one_in_small_chunks_is_read() -> None:
    for data, count in ((b" ", 1_000), (b" " * 5, 8_000)):
        read = ChunkedBody(65_536)
        read.feed(b"%x\r\n%b\r\n" % (len(data), data) * count + b"0\r\n\r\n", 0)
        assert (read.complete, bytes(read.body)) == (True, data * count)
    with pytest.raises(Refusal, match="tiny"):
        ChunkedBody(65_536).feed(b"1\r\n \r\n" * 1_100, 0)
