"""The application's turn, time-outs, backpressure, half-closed connections, stopping with answers outstanding."""

import pytest

from tests.unit.http_front.harness import SMALL, Client, EchoDoor, FakeTransport, SavingDoor, get, post
from tidegate.http_front.limits import FrontLimits


@pytest.mark.parametrize(
    ("request_bytes", "path"),
    [
        (get(b"/healthz"), b"/healthz"),
        (get(b"/v1/check"), b"/v1/check"),
        (post(b"/v1/check?x=1"), b"/v1/check"),
        (post(b"/v1/%63heck"), b"/v1/check"),
        (get(b"/v1/authorized"), b"/v1/authorized"),
        (get(b"http://node/v1/authorize"), b"/v1/authorize"),
        (get(b"/docs", b"Connection: Upgrade", b"Upgrade: h2c"), b"/docs"),
    ],
)
def test_other_requests_are_the_applications_and_the_connection_goes_on(request_bytes: bytes, path: bytes) -> None:
    client = Client(EchoDoor()).send(request_bytes)
    assert [response.body for response in client.responses()] == [b"elsewhere " + path]
    client.send(get(b"/v1/authorize"), request_bytes + get(b"/v1/authorize"))
    decision = b"GET /v1/authorize "
    assert [response.body for response in client.responses()[1:]] == [decision, b"elsewhere " + path, decision]


def test_the_application_waits_for_the_answers_before_its_own() -> None:
    handler = SavingDoor()
    client = Client(handler).send(post() * 2 + get(b"/healthz") + get(b"/metrics"))
    assert not client.transport.reading
    handler.exchanges[1].respond(200, b"", b"second")
    client.send(get(b"/late"))
    assert client.transport.sent == b""
    handler.exchanges[0].respond(200, b"", b"first")
    bodies = [response.body for response in client.responses()]
    assert bodies == [b"first", b"second", b"elsewhere /healthz", b"elsewhere /metrics", b"elsewhere /late"]
    assert client.transport.reading


def test_an_idle_connection_is_closed_after_a_while() -> None:
    fresh, used = Client(EchoDoor()), Client(EchoDoor()).send(get())
    for client in (fresh, used):
        client.pass_s(SMALL.keep_alive_s - 2)
        assert not client.transport.closing
        client.pass_s(2)
        assert client.transport.closing


@pytest.mark.parametrize("beginning", [b"P", post()[:-1], post()[:-2], b"\r\n", get()[:-2]])
def test_a_slow_sender_gets_408_however_busy_it_looks(beginning: bytes) -> None:
    client = Client(EchoDoor())
    client.pass_s(SMALL.keep_alive_s - 2)
    for crumb in [beginning[i : i + 1] for i in range(len(beginning))]:
        client.send(crumb)
    client.pass_s(SMALL.request_s)
    assert client.statuses() == [408]
    client.pass_s(SMALL.linger_s)
    assert client.transport.closing


def test_a_steady_sender_whose_reads_never_end_with_a_request_is_not_slow() -> None:
    client = Client(EchoDoor())
    stream = post() * 50
    for start in range(7, len(stream), 60):
        client.send(stream[start - 60 if start > 60 else 0 : start])
        client.front.on_tick()
    assert set(client.statuses()) == {200}


def test_a_slow_decision_is_waited_for() -> None:
    for request_bytes in (post(), post() * 9, post() + get(b"/healthz"), get(b"/v1/authorize", b"Connection: close")):
        handler = SavingDoor()
        client = Client(handler).send(request_bytes)
        client.pass_s(100)
        assert not client.transport.closing
        assert client.transport.sent == b""
        handler.exchanges[0].respond(200, b"", b"late")
        assert client.responses()[0].body == b"late"


def test_a_client_that_takes_no_answers_gets_no_more_and_is_dropped() -> None:
    handler = SavingDoor()
    client = Client(handler).send(post() * 2)
    client.connection.pause_writing()
    client.send(post())
    assert len(handler.exchanges) == 2
    assert not client.transport.reading
    client.pass_s(SMALL.write_s)
    assert client.transport.aborted


def test_a_client_that_catches_up_goes_on() -> None:
    handler = SavingDoor()
    client = Client(handler).send(post() * 2)
    client.connection.pause_writing()
    client.send(post())
    for exchange in handler.exchanges:
        exchange.respond(200, b"", b"")
    client.connection.resume_writing()
    assert len(handler.exchanges) == 3
    assert client.transport.reading
    client.pass_s(SMALL.write_s + SMALL.keep_alive_s)
    assert not client.transport.closing


def test_a_slow_sender_is_not_forgotten_while_its_answers_are_held_back() -> None:
    handler = SavingDoor()
    client = Client(handler).send(post() + post()[:-1])
    client.connection.pause_writing()
    client.connection.resume_writing()
    handler.exchanges[0].respond(200, b"", b"")
    client.pass_s(SMALL.request_s)
    assert client.statuses() == [200, 408]


def test_backpressure_in_the_middle_of_a_read() -> None:
    class Narrow(FakeTransport):
        def write(self, data: bytes) -> None:
            super().write(data)
            if b"elsewhere" not in data and b"/v1/" in data:
                self.protocol.pause_writing()

    client = Client(EchoDoor())
    client.transport.__class__ = Narrow
    client.send(get(b"/v1/authorize/1") + get(b"/v1/authorize/2") + get(b"/healthz"))
    for number in (1, 2):
        assert len(client.responses()) == number
        client.connection.resume_writing()
    assert client.responses()[2].body == b"elsewhere /healthz"


def test_stopping_closes_idle_connections_and_finishes_what_is_in_flight() -> None:
    idle, partial, handler = Client(EchoDoor()), Client(EchoDoor()).send(post()[:-1]), SavingDoor()
    busy = Client(handler).send(post() * 2 + post()[:-1])
    for client in (idle, partial, busy):
        client.connection.shutdown()
    assert idle.transport.closing
    assert partial.transport.closing
    busy.pass_s(100)
    assert not busy.transport.closing, "the half request that was forgotten has no time that could end"
    handler.exchanges[1].respond(200, b"", b"second")
    handler.exchanges[0].respond(200, b"", b"first")
    first, second = busy.responses()
    assert "connection" not in first.headers
    assert second.headers["connection"] == "close"
    assert busy.transport.closing
    assert busy.connection in busy.state.connections
    busy.lose()
    assert busy.state.connections == set()
    assert busy.state.total_requests == 2


def test_stopping_while_a_request_waits_for_the_application() -> None:
    handler = SavingDoor()
    client = Client(handler).send(post() + get(b"/healthz"))
    client.connection.shutdown()
    handler.exchanges[0].respond(200, b"", b"first")
    (response,) = client.responses()
    assert response.headers["connection"] == "close"
    assert client.transport.closing


def test_a_client_that_closed_its_half_still_gets_its_answers() -> None:
    handler = SavingDoor()
    client = Client(handler).send(post() * 6 + get()[:-2])
    assert client.connection.eof_received() is True
    for batch in (handler.exchanges[:4], handler.exchanges[4:]):
        for exchange in batch or handler.exchanges[4:]:
            exchange.respond(200, b"", b"")
    assert client.statuses() == [200] * 6
    assert client.transport.closing


def test_a_client_that_closed_with_nothing_outstanding_is_closed() -> None:
    for beginning in (b"", post()[:-1], post()):
        assert Client(EchoDoor()).send(beginning).connection.eof_received() is False


def test_the_beat_stops_with_the_last_connection() -> None:
    client = Client(EchoDoor())
    timer = client.front.timer
    assert not timer.cancelled
    client.lose()
    assert timer.cancelled


def test_what_comes_while_nothing_is_read_is_read_afterwards() -> None:
    handler = SavingDoor()
    batch = post(b"/v1/check/batch", b"x" * 300)
    client = Client(handler).send(batch[:100], batch[100:] + get(b"/healthz"), get(b"/healthz"))
    handler.exchanges[0].respond(200, b"", b"")
    assert client.statuses() == [200, 200, 200]


def test_a_long_head_that_is_whole_while_nothing_is_read_is_read_afterwards() -> None:
    head = get(b"/v1/authorize", b"X: " + b"x" * 5000)
    client = Client(EchoDoor(), FrontLimits()).send(head[:4500])
    client.connection.pause_writing()
    client.send(head[4500:])
    client.connection.resume_writing()
    assert client.statuses() == [200]


def test_a_whole_request_that_waits_for_an_answer_has_all_the_time_that_this_needs() -> None:
    handler = SavingDoor()
    client = Client(handler).send(post() + get(b"/healthz")[:-2], b"\r\n")
    client.pass_s(2 * int(SMALL.request_s))
    handler.exchanges[0].respond(200, b"", b"")
    assert client.statuses() == [200, 200]
