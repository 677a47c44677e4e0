"""A front that drains: whoever keeps a connection gets one more answer on it, and is told that it is the last."""

import pytest

from tests.unit.http_front.harness import Client, EchoDoor, SavingDoor, get, post


def drain(client: Client) -> None:
    client.front.drain()


@pytest.mark.parametrize("request_bytes", [post(), get(b"/v1/authorize/x")])
@pytest.mark.parametrize("before", [0, 1, 3])
def test_the_next_answer_of_a_kept_connection_is_its_last(request_bytes: bytes, before: int) -> None:
    client = Client(EchoDoor())
    for _ in range(before):
        client.send(request_bytes)
    assert not client.transport.closing
    drain(client)
    assert not client.transport.closing  # an idle connection stays: a request may be on its way
    client.send(request_bytes)
    *earlier, last = client.responses()
    assert [response.headers.get("connection") for response in earlier] == [None] * before
    assert last.headers["connection"] == "close"
    assert client.transport.closing


def test_a_connection_that_comes_later_gets_one_answer_too() -> None:
    first = Client(EchoDoor()).send(post())
    drain(first)
    later = Client(EchoDoor(), front=first.front).send(post())
    assert [response.headers["connection"] for response in later.responses()] == ["close"]
    assert later.transport.closing


def test_what_is_in_flight_is_answered_first() -> None:
    handler = SavingDoor()
    client = Client(handler).send(post())
    drain(client)
    client.send(post())
    handler.exchanges[1].respond(200, b"", b"second")
    assert client.transport.sent == b""
    handler.exchanges[0].respond(200, b"", b"first")
    assert [response.body for response in client.responses()] == [b"first", b"second"]
    assert client.transport.closing
