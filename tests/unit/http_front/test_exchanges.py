"""Whole requests reach the handler as they were sent; answers leave in order, framed for the client that asked."""

import logging

import pytest

from tests.unit.http_front.harness import SMALL, Client, EchoDoor, SavingDoor, get, post
from tidegate.http_front.exchange import Exchange

CHUNKED = b"POST /v1/check HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "answer"),
    [
        (post(b"/v1/check", b'{"cost":1}'), b'POST /v1/check {"cost":1}'),
        (post(b"/v1/check", b""), b"POST /v1/check "),
        (post(b"/v1/check/batch", b"[]"), b"POST /v1/check/batch []"),
        (get(b"/v1/authorize"), b"GET /v1/authorize "),
        (get(b"/v1/authorize", b"Content-Length: 0"), b"GET /v1/authorize "),
        (get(b"/v1/authorize?deny_status=403"), b"GET /v1/authorize?deny_status=403 "),
        (get(b"/v1/authorize/a/b?c=d"), b"GET /v1/authorize/a/b?c=d "),
        (get(b"/v1/authorize/\xc3\xa4%00#x"), b"GET /v1/authorize/\xc3\xa4%00#x "),
        (get(b"/v1/authorize", b"Content-Length: 2") + b"{}", b"GET /v1/authorize {}"),
        (get(b"/v1/authorize").replace(b"GET", b"M-SEARCH"), b"M-SEARCH /v1/authorize "),
        (get(b"/v1/authorize").replace(b"GET", b"BREW"), b"BREW /v1/authorize "),
        (b"\r\n" + get(b"/v1/authorize"), b"GET /v1/authorize "),
        (get(b"/v1/authorize", b"Connection: Upgrade", b"Upgrade: websocket"), b"GET /v1/authorize "),
        (CHUNKED + b'1\r\n{\r\n01;a="b"\r\n}\r\n0\r\nX-A: b\r\n\r\n', b"POST /v1/check {}"),
        (CHUNKED + b"0\r\n\r\n", b"POST /v1/check "),
        (CHUNKED + b"A \t;x\r\n0123456789\r\n0\r\n\r\n", b"POST /v1/check 0123456789"),
        (CHUNKED.replace(b"chunked", b"Chunked") + b"0\r\n\r\n", b"POST /v1/check "),
    ],
)
def test_a_request_is_served_however_it_is_split(request_bytes: bytes, answer: bytes) -> None:
    whole = Client(EchoDoor()).send(request_bytes)
    assert [response.body for response in whole.responses()] == [answer]
    for cut in range(1, len(request_bytes)):
        split = Client(EchoDoor()).send(request_bytes[:cut], request_bytes[cut:])
        assert split.transport.sent == whole.transport.sent
    crumbs = Client(EchoDoor()).send(*(bytes([byte]) for byte in request_bytes * 2))
    assert crumbs.transport.sent == whole.transport.sent * 2


def test_headers_are_lower_case_and_trimmed_and_in_order() -> None:
    handler = SavingDoor()
    Client(handler).send(get(b"/v1/authorize", b"X-B: \t two words \t", b"x-a:1", b"X-B:", b"X-C: \xff"))
    assert handler.exchanges[0].headers == (
        (b"host", b"node"),
        (b"x-b", b"two words"),
        (b"x-a", b"1"),
        (b"x-b", b""),
        (b"x-c", b"\xff"),
    )
    assert handler.exchanges[0].peer == "192.0.2.7"


def test_a_repeated_head_is_the_same_object_and_another_one_is_not() -> None:
    handler = SavingDoor()
    Client(handler).send(post(body=b"ab") + post(body=b"cd") + post(body=b"e") + post(body=b"fg"))
    first, second, third, fourth = handler.exchanges
    assert first.head is second.head
    assert third.head.length == 1
    assert fourth.head == first.head
    assert [exchange.body for exchange in handler.exchanges] == [b"ab", b"cd", b"e", b"fg"]


def test_answers_leave_in_the_order_of_their_requests() -> None:
    handler = SavingDoor()
    client = Client(handler).send(get(b"/v1/authorize/0") + get(b"/v1/authorize/1"), get(b"/v1/authorize/2"))
    answer(handler.exchanges[2])
    answer(handler.exchanges[1])
    assert client.transport.sent == b""
    answer(handler.exchanges[0])
    assert [response.body[-2:] for response in client.responses()] == [b"/0", b"/1", b"/2"]


def test_the_depth_of_a_pipeline_is_bounded_and_all_of_it_is_served() -> None:
    handler = SavingDoor()
    client = Client(handler).send(b"".join(get(b"/v1/authorize/%d" % number) for number in range(10)))
    served = 0
    for waiting in (4, 4, 2):
        assert len(handler.exchanges) - served == waiting
        assert client.transport.reading == (waiting < SMALL.pipeline_depth)
        for exchange in reversed(handler.exchanges[served:]):
            answer(exchange)
        served += waiting
    assert [response.body for response in client.responses()] == [b"/v1/authorize/%d" % n for n in range(10)]
    assert client.transport.reading


def test_bodies_that_wait_are_bounded() -> None:
    handler = SavingDoor()
    client = Client(handler).send(post(body=b"x" * 1000) * 4)
    assert len(handler.exchanges) == 3
    assert not client.transport.reading
    for exchange in list(handler.exchanges):
        answer(exchange)
    assert len(handler.exchanges) == 4
    assert client.transport.reading


def test_a_thousand_pipelined_requests_that_are_answered_at_once() -> None:
    client = Client(EchoDoor()).send(get() * 1000)
    assert client.statuses() == [200] * 1000


def test_connection_close_is_the_last_request() -> None:
    client = Client(EchoDoor()).send(get(b"/v1/authorize", b"Connection: keep-alive, Close") + get())
    (response,) = client.responses()
    assert response.headers["connection"] == "close"
    assert client.transport.closing


def test_old_clients_close_unless_they_say_otherwise() -> None:
    old = b"GET /v1/authorize HTTP/1.0\r\n"
    closing = Client(EchoDoor()).send(old + b"\r\n")
    assert closing.responses()[0].headers["connection"] == "close"
    assert closing.transport.closing
    staying = Client(EchoDoor()).send(old + b"Connection: Keep-Alive\r\n\r\n")
    assert staying.responses()[0].headers["connection"] == "keep-alive"
    assert not staying.transport.closing
    assert staying.send(get()).statuses() == [200, 200]


def test_head_gets_the_length_but_not_the_body() -> None:
    client = Client(EchoDoor()).send(b"HEAD /v1/authorize HTTP/1.1\r\nHost: n\r\n\r\n" + get())
    head, _, rest = bytes(client.transport.sent).partition(b"\r\n\r\n")
    assert b"content-length: 19" in head
    assert rest.startswith(b"HTTP/1.1 200 OK\r\n")
    assert client.responses(heads=1)[1].body == b"GET /v1/authorize "


def test_every_response_is_dated() -> None:
    (response,) = Client(EchoDoor()).send(get()).responses()
    assert response.headers["date"] == "Tue, 14 Nov 2023 22:13:20 GMT"


EXPECTING = post(b"/v1/check", b"{}", b"Expect: 100-Continue")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def test_a_client_that_waits_is_told_to_continue() -> None:
    client = Client(EchoDoor()).send(EXPECTING[:-2])
    assert client.transport.sent == CONTINUE
    client.send(b"{", b"}")
    assert client.transport.sent.count(CONTINUE) == 1
    assert client.transport.sent.endswith(b"POST /v1/check {}")


def test_a_client_that_does_not_wait_is_not() -> None:
    assert CONTINUE not in Client(EchoDoor()).send(EXPECTING).transport.sent
    assert CONTINUE not in Client(EchoDoor()).send(EXPECTING[:-1], b"}").transport.sent


def test_continue_comes_after_the_answers_before_it() -> None:
    handler = SavingDoor()
    client = Client(handler).send(post() + EXPECTING[:-2])
    assert client.transport.sent == b""
    handler.exchanges[0].respond(200, b"", b"first")
    assert client.transport.sent.endswith(b"first" + CONTINUE)
    client.send(b"{}")
    answer(handler.exchanges[1])
    assert client.transport.sent.endswith(b"/v1/check")


def test_a_body_that_is_too_long_is_not_continued() -> None:
    client = Client(EchoDoor()).send(post(b"/v1/check", b"x" * 1001, b"Expect: 100-continue")[:-1001])
    assert client.statuses() == [413]


def test_a_client_that_left_is_not_answered_and_disturbs_nobody() -> None:
    handler = SavingDoor()
    client = Client(handler).send(post() * 3)
    answer(handler.exchanges[1])
    client.transport.closing = True
    answer(handler.exchanges[0])  # the transport closes, and the front doesn't know yet
    client.lose()
    for exchange in handler.exchanges:
        answer(exchange)
        assert exchange.peer is None
    assert client.transport.sent == b""
    assert client.state.connections == set()


def test_a_second_answer_is_ignored() -> None:
    handler = SavingDoor()
    client = Client(handler).send(post())
    handler.exchanges[0].respond(200, b"", b"first")
    handler.exchanges[0].respond(200, b"", b"second")
    assert [response.body for response in client.responses()] == [b"first"]


def test_a_door_that_fails_costs_one_request(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(EchoDoor):
        def check_batch(self, exchange: Exchange) -> None:
            raise LookupError("a bug", exchange.path)

    with caplog.at_level(logging.CRITICAL):
        client = Client(Failing()).send(post() + post(b"/v1/check/batch") + post())
    assert client.statuses() == [200, 500, 200]
    assert b"a bug" not in client.transport.sent


def answer(exchange: Exchange) -> None:
    exchange.respond(200, b"", exchange.path)
