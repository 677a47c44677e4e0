"""A front in a real uvicorn, over real sockets, on both event loops, plain and with TLS."""

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from testing.certificates import certificate
from tests.integration.http_front.conftest import PATIENCE_S, FrontFactory, RunningFront
from tests.unit.http_front.harness import EchoDoor, SavingDoor, get, parse_responses, post
from tests.unit.http_front.requests_table import REFUSED
from tidegate.http_front.exchange import Exchange
from tidegate.http_front.limits import FrontLimits

QUICK = FrontLimits(keep_alive_s=0.4, request_s=0.4, write_s=0.4, linger_s=0.1, tick_s=0.05)


class ReversingDoor:
    """Answers all that came in one turn of the loop in the reverse order, in the next."""

    def __init__(self) -> None:
        self._waiting: list[Exchange] = []
        self.most_waiting = 0

    def check(self, exchange: Exchange) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._answer_all)
        self._waiting.append(exchange)
        self.most_waiting = max(self.most_waiting, len(self._waiting))

    check_batch = authorize = check

    def _answer_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for exchange in reversed(waiting):
            exchange.respond(200, b"", exchange.method + b" " + exchange.path + b" " + exchange.body)


@pytest.fixture(params=["plain", "tls"])
def start(request: pytest.FixtureRequest, run_front: FrontFactory, tmp_path: Path) -> Callable[..., RunningFront]:
    if request.param == "plain":
        return run_front
    return lambda *arguments: run_front(*arguments, certificate=certificate(tmp_path))


def read_until(connection: socket.socket, end: bytes) -> bytes:
    received = b""
    while end not in received:
        part = connection.recv(65536)
        assert part, f"closed after {received!r}"
        received += part
    return received


def read_to_end(connection: socket.socket) -> bytes:
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


LAST = get(b"/v1/authorize/last", b"Connection: close")
STREAM = [
    post(b"/v1/check", b'{"cost": 1}'),
    post(b"/v1/check/batch", b"[" + b"1," * 2000 + b"1]"),
    get(b"/v1/authorize?deny_status=403"),
    b"POST /v1/check HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x\r\n}\r\n0\r\n\r\n",
] * 8


def test_pipelined_requests_are_answered_in_order_though_decided_in_reverse(start: Callable[..., RunningFront]) -> None:
    handler = ReversingDoor()
    front = start(handler)
    with front.connect() as connection:
        connection.sendall(b"".join(STREAM) + LAST)
        responses = parse_responses(read_to_end(connection))
    assert [response.status for response in responses] == [200] * (len(STREAM) + 1)
    bodies = [response.body for response in responses]
    expected = [b'POST /v1/check {"cost": 1}', b"POST /v1/check/batch [" + b"1," * 2000 + b"1]"]
    expected += [b"GET /v1/authorize?deny_status=403 ", b"POST /v1/check {}"]
    assert bodies == expected * 8 + [b"GET /v1/authorize/last "]
    assert handler.most_waiting > 1


def test_requests_that_arrive_byte_by_byte(start: Callable[..., RunningFront]) -> None:
    front = start(ReversingDoor())
    with front.connect() as connection:
        for byte in STREAM[0] + STREAM[3] + LAST:
            connection.sendall(bytes([byte]))
        responses = parse_responses(read_to_end(connection))
    assert [response.status for response in responses] == [200] * 3


def test_a_request_of_the_application_between_decisions(start: Callable[..., RunningFront]) -> None:
    front = start(ReversingDoor())
    with front.connect() as connection:
        connection.sendall(
            STREAM[0] + post(b"/elsewhere", b"x" * 100_000) + get(b"/v1/authorize", b"Connection: close")
        )
        first, second, third = parse_responses(read_to_end(connection))
    assert first.body == b'POST /v1/check {"cost": 1}'
    assert second.body == b"elsewhere /elsewhere " + b"x" * 100_000
    assert third.body == b"GET /v1/authorize "


def test_an_ordinary_client(start: Callable[..., RunningFront]) -> None:
    front = start(ReversingDoor())
    scheme = http.client.HTTPSConnection if front.tls else http.client.HTTPConnection
    options = {"context": front.tls} if front.tls else {}
    client = scheme("127.0.0.1", front.port, timeout=PATIENCE_S, **options)
    for method, path, body in [("POST", "/v1/check", "{}"), ("HEAD", "/v1/authorize", None), ("GET", "/x", None)]:
        client.request(method, path, body)
        response = client.getresponse()
        assert response.status == 200
        assert response.read() == {"POST": b"POST /v1/check {}", "HEAD": b"", "GET": b"elsewhere /x "}[method]
    client.close()


def test_every_refusal_arrives_and_the_next_connection_is_served(run_front: FrontFactory) -> None:
    front = run_front(EchoDoor(), QUICK)
    for name, (status, request) in REFUSED.items():
        with front.connect() as connection:
            connection.sendall(request + LAST)
            (response,) = parse_responses(read_to_end(connection))
            assert response.status == status, name
    with front.connect() as connection:
        connection.sendall(LAST)
        assert b"200 OK" in read_to_end(connection)


def test_a_refused_upload_is_answered_though_the_client_still_sends(run_front: FrontFactory) -> None:
    front = run_front(EchoDoor(), QUICK)
    with front.connect() as connection:
        connection.sendall(post(b"/v1/check", b"x" * 70_000))
        (response,) = parse_responses(read_to_end(connection))
    assert response.status == 413


def test_continue(start: Callable[..., RunningFront]) -> None:
    front = start(ReversingDoor())
    with front.connect() as connection:
        connection.sendall(post(b"/v1/check", b"{}", b"Expect: 100-continue", b"Connection: close")[:-2])
        assert read_until(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        (response,) = parse_responses(read_to_end(connection))
    assert response.body == b"POST /v1/check {}"


def test_idle_and_slow_clients_are_closed(start: Callable[..., RunningFront]) -> None:
    front = start(EchoDoor(), QUICK)
    with front.connect() as idle, front.connect() as slow, front.connect() as used:
        slow.sendall(post()[:-1])
        used.sendall(get())
        assert read_to_end(idle) == b""
        assert parse_responses(read_to_end(slow))[0].status == 408
        assert parse_responses(read_to_end(used))[0].status == 200


def test_a_client_that_does_not_read_is_held_back_and_dropped(run_front: FrontFactory) -> None:
    class BigDoor(EchoDoor):
        served = 0

        def check(self, exchange: Exchange) -> None:
            type(self).served += 1
            exchange.respond(200, b"", b"x" * 60_000)

        check_batch = authorize = check

    front = run_front(BigDoor(), QUICK)
    wanted = 2000
    with front.connect() as connection:
        connection.settimeout(0.2)
        sent = 0
        try:
            while sent < wanted:
                connection.sendall(get())
                sent += 1
        except (TimeoutError, ConnectionError):
            pass
        wait_until(lambda: not front.call(lambda: front.server.server_state.connections))
    assert BigDoor.served < wanted


def test_a_long_pipeline_of_big_answers_arrives_whole(run_front: FrontFactory) -> None:
    class BigDoor(EchoDoor):
        def check(self, exchange: Exchange) -> None:
            exchange.respond(200, b"", b"x" * 60_000)

        check_batch = authorize = check

    front = run_front(BigDoor())
    with front.connect() as connection:
        sender = threading.Thread(target=connection.sendall, args=(get() * 300 + LAST,))
        sender.start()
        responses = parse_responses(read_to_end(connection))
        sender.join(PATIENCE_S)
    assert [len(response.body) for response in responses] == [60_000] * 301


def test_stopping_finishes_what_is_in_flight_and_closes_the_idle(start: Callable[..., RunningFront]) -> None:
    handler = SavingDoor()
    front = start(handler)
    with front.connect() as idle, front.connect() as busy:
        idle.sendall(get(b"/healthz"))
        read_until(idle, b"elsewhere /healthz")
        busy.sendall(post() + post())
        wait_until(lambda: len(handler.exchanges) == 2)
        front.stop()
        assert read_to_end(idle) == b""
        assert front.thread.is_alive()
        front.call(lambda: [exchange.respond(200, b"", b"done") for exchange in reversed(handler.exchanges)])
        first, second = parse_responses(read_to_end(busy))
        assert (first.status, second.status) == (200, 200)
        assert second.headers["connection"] == "close"
    front.thread.join(PATIENCE_S)
    assert not front.thread.is_alive()


def test_a_client_that_hangs_up_disturbs_nobody(start: Callable[..., RunningFront]) -> None:
    handler = SavingDoor()
    front = start(handler)
    with front.connect() as staying:
        leaving = front.connect()
        leaving.sendall(post() * 2)
        wait_until(lambda: len(handler.exchanges) == 2)
        staying.sendall(post())
        wait_until(lambda: len(handler.exchanges) == 3)
        # A reset, not a farewell: the answer meets a dead socket.
        leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        leaving.close()
        front.call(lambda: [exchange.respond(200, b"", b"done") for exchange in handler.exchanges])
        assert read_until(staying, b"done").startswith(b"HTTP/1.1 200 OK")
        wait_until(lambda: len(front.call(lambda: set(front.server.server_state.connections))) == 1)


def test_a_client_that_closes_its_half_gets_its_answer(run_front: FrontFactory) -> None:
    handler = SavingDoor()
    front = run_front(handler)
    with front.connect() as connection:
        connection.sendall(post())
        connection.shutdown(socket.SHUT_WR)
        wait_until(lambda: len(handler.exchanges) == 1)
        front.call(lambda: handler.exchanges[0].respond(200, b"", b"done"))
        assert read_to_end(connection).endswith(b"done")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.01)


def test_a_client_that_takes_nothing_of_what_the_kernel_buffers_is_dropped(start: Callable[..., RunningFront]) -> None:
    front = start(EchoDoor(), FrontLimits(write_s=0.4))
    connected = front.server.server_state.connections
    with front.connect() as client:
        client.sendall(get(b"/v1/authorize"))
        client.recv(65_536)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.sendall(post(body=b"x" * 50_000, path=b"/docs") * 3)
        deadline = time.monotonic() + PATIENCE_S
        while front.call(lambda: len(connected)):
            assert time.monotonic() < deadline, "it would be kept as long as TCP tries"
            time.sleep(0.05)  # between two looks
