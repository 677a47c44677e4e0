"""The open-loop generator against a server whose slowness is known."""

import socket
import threading
from itertools import islice, pairwise
from pathlib import Path

import pytest

from tools.bench import open_loop
from tools.bench.errors import BenchError

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
STALL_S = 0.3


class StallingServer:
    """Answers at once, but the ``stalls_at``-th request of its only connection after ``STALL_S``."""

    def __init__(self, stalls_at: int = -1, answer: bytes = ANSWER, pieces: int = 1) -> None:
        self._stalls_at = stalls_at
        self._pieces = pieces
        self._answer = answer
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "StallingServer":
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._listener.close()
        self._thread.join(timeout=10)

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection:
            number = 0
            while connection.recv(65_536):
                if number == self._stalls_at:
                    self._over.wait(STALL_S)
                if not self._send(connection):
                    return
                number += 1

    def _send(self, connection: socket.socket) -> bool:
        """Send the answer in pieces; whether the client is still there."""
        size = max(1, -(-len(self._answer) // self._pieces))
        try:
            for start in range(0, len(self._answer), size):
                connection.sendall(self._answer[start : start + size])
        except OSError:
            return False
        return bool(self._answer)


@pytest.fixture
def bodies(tmp_path) -> str:
    path = tmp_path / "bodies"
    path.write_bytes(b'{"cost":1}\n{"cost":10}\n')
    return str(path)


def make_plan(
    bodies: str, *, port: int = 0, arrivals: open_loop.Arrivals = "even", seconds: float = 1.0
) -> open_loop.Plan:
    return open_loop.Plan(
        port=port, path="/v1/check", bodies=bodies, rate=200.0, seconds=seconds, connections=1, arrivals=arrivals
    )


def test_a_stall_shows_in_every_request_that_it_delayed(bodies, tmp_path):
    """One answer is late by 300 ms; some sixty more requests were due meanwhile and must not be forgotten."""
    with StallingServer(stalls_at=150) as server:
        seen = open_loop.run(make_plan(bodies, port=server.port), tmp_path)
    assert seen.requests == pytest.approx(200, abs=2)
    assert seen.all_requests == pytest.approx(300, abs=2)
    # A fifth or more of all requests waited over 50 ms, although the server was slow but once.
    assert seen.p99_us > 200_000
    assert seen.offered_per_s == 200.0


def test_a_refusal_ends_the_run(bodies, tmp_path):
    refusing = ANSWER.replace(b"200 OK", b"429 Too Many Requests")
    with StallingServer(answer=refusing) as server, pytest.raises(BenchError, match=r"refused: HTTP/1.1 429"):
        open_loop.run(make_plan(bodies, port=server.port), tmp_path)


def test_even_arrivals_are_a_gap_apart(bodies):
    instants = list(open_loop.instants_of(make_plan(bodies), 0, open_loop.NS))
    assert len(instants) == 200
    assert {after - before for before, after in pairwise(instants)} == {5_000_000}


def test_random_arrivals_keep_the_rate_but_not_the_gap(bodies):
    instants = list(islice(open_loop.instants_of(make_plan(bodies, arrivals="poisson"), 0, 100 * open_loop.NS), 10_000))
    gaps = {after - before for before, after in pairwise(instants)}
    assert len(gaps) > 1_000
    assert instants[-1] / 10_000 == pytest.approx(5_000_000, rel=0.1)


@pytest.mark.parametrize("pieces", [1, 2, len(ANSWER)])
@pytest.mark.parametrize(
    "answer", [ANSWER, ANSWER.replace(b"Content-Length", b"content-length"), ANSWER + b" " * 70_000]
)
def test_an_answer_is_complete_with_its_last_byte(bodies, tmp_path, pieces: int, answer: bytes):
    if len(answer) > len(ANSWER):
        answer = answer.replace(b"Length: 2", b"Length: 70002")
    with StallingServer(answer=answer, pieces=pieces) as server:
        seen = open_loop.run(make_plan(bodies, port=server.port, seconds=0.2), tmp_path)
    assert seen.requests == pytest.approx(40, abs=2)


def test_an_answer_without_length_or_a_closed_connection_ends_the_run(bodies, tmp_path):
    with (
        StallingServer(answer=b"HTTP/1.1 200 OK\r\n\r\n") as server,
        pytest.raises(BenchError, match="without content-length"),
    ):
        open_loop.run(make_plan(bodies, port=server.port, seconds=0.2), tmp_path)
    with StallingServer(answer=b"") as server, pytest.raises(BenchError, match="closed a connection"):
        open_loop.run(make_plan(bodies, port=server.port, seconds=0.2), tmp_path)


def test_requests_carry_their_length(bodies):
    first, second = open_loop.requests_of(make_plan(bodies))
    assert first.endswith(b"Content-Length: 10\r\n\r\n" + Path(bodies).read_bytes().splitlines()[0])
    assert second.endswith(b'Content-Length: 11\r\n\r\n{"cost":10}')
