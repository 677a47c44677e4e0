"""A check that is alone on its connection goes a shorter way; whatever happens meanwhile, nobody can tell."""

import logging
from collections.abc import Callable

import pytest

from tests.unit.http_front.harness import SMALL, Client, SavingDoor, get, post
from tidegate.http_front.exchange import Exchange


def begun(body: bytes = b"{}") -> tuple[Client, SavingDoor, Exchange]:
    """A connection whose second check is under way, with a head that was seen before."""
    handler = SavingDoor()
    client = Client(handler).send(post(body=body))
    handler.exchanges.pop().respond(200, b"", b"first")
    client.send(post(body=body))
    assert client.connection.alone is handler.exchanges[0]
    return client, handler, handler.exchanges.pop()


def bodies(client: Client) -> list[bytes]:
    return [response.body for response in client.responses()]


ANSWERS: dict[str, Callable[[Exchange], None]] = {
    "quick": lambda exchange: exchange.respond_ok(b"x-a: b\r\n", b"second"),
    "usual": lambda exchange: exchange.respond(200, b"x-a: b\r\n", b"second"),
}


@pytest.fixture(params=ANSWERS)
def answer(request: pytest.FixtureRequest) -> Callable[[Exchange], None]:
    return ANSWERS[request.param]


def test_it_is_answered_the_same_in_both_ways() -> None:
    sent = set()
    for answer in ANSWERS.values():
        client, _, exchange = begun()
        answer(exchange)
        assert client.connection.alone is None
        sent.add(bytes(client.transport.sent))
        assert client.state.total_requests == 2
    assert len(sent) == 1
    assert bodies(client) == [b"first", b"second"]


def test_another_answer_than_200_is_sent_too() -> None:
    client, _, exchange = begun()
    exchange.respond(429, b"", b"denied")
    assert client.statuses() == [200, 429]


def test_a_second_answer_is_ignored(answer) -> None:
    client, _, exchange = begun()
    answer(exchange)
    exchange.respond_ok(b"", b"third")
    exchange.respond(200, b"", b"third")
    assert bodies(client) == [b"first", b"second"]


def test_requests_that_come_meanwhile_are_answered_in_order(answer) -> None:
    client, handler, exchange = begun()
    client.send(post(body=b"[]"), get(b"/v1/authorize/x"))
    for later, body in zip(handler.exchanges, (b"third", b"fourth"), strict=True):
        later.respond_ok(b"", body)
    assert bodies(client) == [b"first"]
    answer(exchange)
    assert bodies(client) == [b"first", b"second", b"third", b"fourth"]


def test_half_a_request_that_comes_meanwhile_goes_on_afterwards(answer) -> None:
    client, handler, exchange = begun()
    client.send(post()[:20])
    answer(exchange)
    client.send(post()[20:])
    handler.exchanges.pop().respond_ok(b"", b"third")
    assert bodies(client) == [b"first", b"second", b"third"]


def test_nonsense_that_comes_meanwhile_is_refused_after_the_answer(answer) -> None:
    client, _, exchange = begun()
    client.send(b"\0\r\n\r\n")
    assert bodies(client) == [b"first"]
    answer(exchange)
    assert client.statuses() == [200, 200, 400]


def test_a_client_that_sends_no_more_gets_its_answer_and_is_closed(answer) -> None:
    client, _, exchange = begun()
    assert client.connection.eof_received() is True
    answer(exchange)
    assert bodies(client) == [b"first", b"second"]
    assert client.transport.closing


def test_a_client_that_left_is_not_written_to(answer) -> None:
    client, _, exchange = begun()
    client.lose()
    answer(exchange)
    assert bodies(client) == [b"first"]


def test_a_stopping_server_finishes_it_and_closes(answer) -> None:
    client, _, exchange = begun()
    client.connection.shutdown()
    assert not client.transport.closing
    answer(exchange)
    assert bodies(client) == [b"first", b"second"]
    assert client.responses()[1].headers["connection"] == "close"
    assert client.transport.closing


def test_a_client_that_takes_nothing_is_held_and_dropped(answer) -> None:
    client, _, exchange = begun()
    client.connection.pause_writing()
    assert not client.transport.reading
    answer(exchange)
    client.pass_s(int(SMALL.write_s) + 1)
    assert client.transport.aborted


def test_it_has_all_the_time_that_the_door_needs_and_then_the_connection_is_idle(answer) -> None:
    client, _, exchange = begun()
    client.pass_s(3 * int(SMALL.keep_alive_s))
    assert not client.transport.closing
    answer(exchange)
    client.pass_s(int(SMALL.keep_alive_s) - 2)
    assert not client.transport.closing
    client.pass_s(3)
    assert client.transport.closing


def test_a_door_that_fails_costs_one_request(caplog: pytest.LogCaptureFixture) -> None:
    client, handler, exchange = begun()
    exchange.respond_ok(b"", b"second")

    def fail(_: Exchange) -> None:
        raise LookupError("the handler failed")

    client.connection.first_handle = fail
    with caplog.at_level(logging.CRITICAL, "tidegate.front"):
        client.send(post())
    assert client.statuses() == [200, 200, 500]
    client.connection.first_handle = handler.check
    client.send(post())
    handler.exchanges.pop().respond_ok(b"", b"fourth")
    assert bodies(client)[3] == b"fourth"
