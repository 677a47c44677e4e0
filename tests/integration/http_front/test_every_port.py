"""What holds on one port holds on all: node, health port, control plane, as processes, attacked over sockets."""

import random
import socket
import struct
import time
from collections.abc import Iterator

import httpx
import pytest

from control_plane.migration import migrate
from testing.effort import share
from testing.node import write_snapshot
from tests.integration.http_front.attacks import (
    CONFIG,
    GATEWAY_TOKEN,
    answered_beside_half_heads,
    authorization_as_trailer,
    header_lines,
    measured,
    pipelined,
    status_of,
    with_trailers,
)
from tests.integration.http_front.ports import ADMIN_TOKEN, PATIENCE_S, Port, every_port
from tests.unit.http_front import fuzz
from tests.unit.http_front.harness import get, parse_responses
from tests.unit.http_front.requests_table import REFUSED

PORTS = ("node", "health", "control plane")
LAST = get(b"/healthz", b"Connection: close")
FUZZED_STREAMS = 150


@pytest.fixture(scope="module")
def written_snapshot(tmp_path_factory):
    import asyncio  # noqa: PLC0415 - a fixture of a module has no loop of its own

    path = tmp_path_factory.mktemp("front") / "snapshot"
    asyncio.run(write_snapshot(path, CONFIG))
    return path


@pytest.fixture(scope="module")
def database(postgres_server):
    postgres_server.execute('CREATE DATABASE "attacked"')
    migrate(postgres_server.url("attacked"))
    yield postgres_server.url("attacked")
    postgres_server.execute('DROP DATABASE "attacked" WITH (FORCE)')


@pytest.fixture(scope="module")
def ports(tmp_path_factory, written_snapshot, valkey_server, database) -> Iterator[dict[str, Port]]:
    with every_port(tmp_path_factory.mktemp("ports"), written_snapshot, valkey_server.url, database) as running:
        yield running


@pytest.fixture(params=PORTS)
def port(request, ports) -> Port:
    return ports[request.param]


def elsewhere(request: bytes) -> bytes:
    """The same, for a path that every application answers."""
    return request.replace(b"/v1/check", b"/healthz").replace(b"/v1/authorize", b"/healthz")


def received(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_what_is_refused_is_refused_on_every_port_and_nothing_behind_it_is_served(port):
    for name, (status, request) in REFUSED.items():
        with port.connect() as connection:
            connection.sendall(elsewhere(request) + LAST)
            (answer,) = parse_responses(received(connection))
        assert (answer.status, answer.headers["connection"]) == (status, "close"), name
        assert answer.headers["content-type"] == "application/problem+json", name
    assert port.answers()


def test_what_is_refused_after_a_good_request_is_refused_in_its_turn(port):
    for name, (status, request) in REFUSED.items():
        with port.connect() as connection:
            connection.sendall(get(b"/healthz") + elsewhere(request) + LAST)
            first, second = parse_responses(received(connection))
        assert (first.status, second.status) == (200, status), name


def test_mutated_streams_end_well_on_every_port(port):
    rng = random.Random(f"{port.name} 7")
    statuses = set()
    for number in range(FUZZED_STREAMS):
        stream = elsewhere(fuzz.mutate(rng)) if rng.random() < 0.8 else fuzz.mutate(rng)
        with port.connect() as connection:
            for part in fuzz.split(rng, stream):
                try:
                    connection.sendall(part)
                except OSError:
                    break
            try:
                connection.shutdown(socket.SHUT_WR)
                answer = received(connection)
            except OSError:  # it was refused, and we still sent
                continue
        if b"HEAD" not in stream and not stream.startswith(b"HEAD"):
            answer = answer.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
            statuses |= {response.status for response in parse_responses(answer)}
        if number % 50 == 0:
            assert port.answers()
    assert port.answers()
    assert {200, 400} <= statuses
    assert "Traceback" not in port.logged()


@pytest.mark.parametrize(
    ("status", "request_bytes"),
    [
        (414, b"GET /healthz?" + b"a" * 9_000),
        (431, get(b"/healthz", *[b"X-%d: y" % number for number in range(101)])),
        (431, get(b"/healthz", b"X: " + b"y" * 70_000)[:-4]),
        (413, b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 200000000\r\n\r\n"),
        (400, get(b"/healthz#top")),
        (400, get(b"/health\xff")),
    ],
)
def test_bounds_of_a_head_hold_on_every_port(port, status, request_bytes):
    with port.connect() as connection:
        connection.sendall(request_bytes)
        (answer,) = parse_responses(received(connection))
    assert answer.status == status


def test_trailers_are_never_headers(ports):
    control_plane, node = ports["control plane"], ports["node"]
    assert status_of(control_plane, authorization_as_trailer()) == 401
    as_header = with_trailers(b"POST /v1/plans HTTP/1.1", {}, f"Authorization: Bearer {ADMIN_TOKEN}".encode())
    assert status_of(control_plane, as_header) == 422  # an admin who says nothing
    token = b"X-Tidegate-Token: " + GATEWAY_TOKEN.encode()
    told = {"X-Tidegate-Client": "victim", "X-Tidegate-Cost": "999"}
    line = b"POST /v1/authorize/x HTTP/1.1"
    for first in (b"", get(b"/healthz")):
        assert status_of(node, with_trailers(line, told, token, b"X-API-Key: tg_acme", first=first)) == 200
    peek = {"client": "victim", "cost": 0}
    with httpx.Client(trust_env=False, headers={"X-Tidegate-Token": GATEWAY_TOKEN}) as gateway:
        answer = gateway.post(f"http://127.0.0.1:{node.number}/v1/check", json=peek)
    assert answer.json()["remaining"] == 1_000


@pytest.mark.parametrize("count", [10, 60])
def test_pipelines_cost_little_and_others_are_answered(port, count):
    cost = measured(port, pipelined(count, during_s=share(ci=2, nightly=8)), rest_s=1.0)
    assert cost.most_mib - cost.before_mib < 48, cost
    assert port.answers()


def test_a_head_without_end_costs_nothing(port):
    cost = measured(port, header_lines(30), rest_s=0.5)
    assert cost.most_mib - cost.before_mib < 16, cost


def test_upgrades_and_hang_ups_leave_no_traceback(port):
    upgrade = get(b"/healthz", b"Connection: Upgrade, close", b"Upgrade: websocket", b"Sec-WebSocket-Key: eA==")
    assert status_of(port, upgrade) == 200
    half = b"POST %b HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\nContent-Length: 1000\r\n\r\n{"
    chunked = half.replace(b"Content-Length: 1000", b"Transfer-Encoding: chunked").replace(b"{", b"5\r\n{")
    for path in (
        b"/v1/check?x",
        b"/v1/leases",
        b"/v1/load",
        b"/internal/v1/counts",
        b"/v1/plans",
        b"/v1/clients/import",
    ):
        for begun in (half, chunked):
            for reset in (False, True):
                with port.connect() as connection:
                    connection.sendall(begun % (path, ADMIN_TOKEN.encode()))
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", reset, 0))
                    time.sleep(0.01)  # most have reached their handler by then; all end the same way
    assert port.answers()
    assert "Traceback" not in port.logged()
    assert len(port.logged()) < 20_000


def test_half_heads_take_no_port_away(tmp_path, written_snapshot, valkey_server, database):
    with every_port(tmp_path, written_snapshot, valkey_server.url, database, descriptors=300) as running:
        for port in running.values():
            waited_s = answered_beside_half_heads(port)
            assert waited_s is not None, port.name
            assert waited_s < PATIENCE_S, port.name
        assert all(port.answers() for port in running.values())
