"""A connection on a transport: backpressure, the end of a connection, and how many there may be."""

import dataclasses

import pytest

from data_plane.rls import server as server_module
from data_plane.rls.frames import GOAWAY, PREFACE, Http2Limits, settings
from data_plane.rls.grpc import GrpcCall, GrpcHandler
from data_plane.rls.protocol import RlsProtocol
from data_plane.rls.server import RlsServer
from tests.unit.rls.harness import PATH, call, echoed, kinds, parse

HELLO = PREFACE + settings({})


class Transport:
    """Keeps what is written, and what is done to it."""

    def __init__(self, *, half_closes: bool = True) -> None:
        self.written = bytearray()
        self.done: list[str] = []
        self._half_closes = half_closes

    def get_extra_info(self, _name):
        return None

    def is_closing(self):
        return "abort" in self.done or "close" in self.done

    def can_write_eof(self):
        return self._half_closes

    def write(self, data):
        self.written += data

    def __getattr__(self, name):
        return lambda: self.done.append(name)


@pytest.fixture
async def server():
    handler = GrpcHandler({PATH.encode(): lambda asked, said: asked.reply(said)}, GrpcCall, 65_536)
    return RlsServer(handler, Http2Limits(), lambda: False)


def connected(server, **options):
    protocol, transport = RlsProtocol(server), Transport(**options)
    protocol.connection_made(transport)
    return protocol, transport


async def test_a_client_that_takes_no_answers_is_not_read_and_then_dropped(server):
    """CVE-2019-9517: windows of HTTP/2 are open, that of TCP is not."""
    protocol, transport = connected(server)
    protocol.pause_writing()
    assert transport.done == ["pause_reading"]
    protocol.end_stalled()
    protocol.resume_writing()
    protocol.end_stalled()
    assert transport.done == ["pause_reading", "resume_reading"]
    protocol.pause_writing()
    protocol.end_stalled()
    protocol.end_stalled()
    assert transport.done[-1] == "abort"
    protocol.connection_lost(None)
    assert server.connections == set()


async def test_answers_of_one_turn_are_one_write(server):
    protocol, transport = connected(server)
    protocol.data_received(HELLO + call(1))
    protocol.data_received(call(3))
    before = len(transport.written)
    protocol.flush()
    got = parse(bytes(transport.written[before:]))
    assert set(echoed(got)) == {1, 3}


@pytest.mark.parametrize("half_closes", [True, False])
async def test_who_breaks_the_protocol_is_told_why_before_the_end(server, half_closes):
    protocol, transport = connected(server, half_closes=half_closes)
    protocol.data_received(b"GET / HTTP/1.1\r\n\r\n")
    protocol.flush()
    assert kinds(parse(bytes(transport.written)))[-1] == GOAWAY
    assert transport.done == ["write_eof" if half_closes else "close"]
    protocol.data_received(b"more")
    protocol.end_stalled()
    protocol.end_stalled()
    assert transport.done[-1] == "abort"


async def test_connections_are_bounded(server, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 2)
    (first, _), (_, _), (_, refused) = (connected(server) for _ in range(3))
    assert refused.done == ["abort"]
    first.connection_lost(None)
    _, admitted = connected(server)
    assert admitted.done == []


async def test_stopping_ends_idle_connections_at_once_and_others_when_they_are_answered(server):
    waiting = []
    server.handler = GrpcHandler({PATH.encode(): lambda asked, _: waiting.append(asked)}, GrpcCall, 65_536)
    server.limits = dataclasses.replace(server.limits)
    protocol, transport = connected(server)
    protocol.data_received(HELLO + call(1))
    protocol.finish()
    protocol.finish()
    assert transport.done == []
    waiting[0].reply(b"late")
    protocol.flush()
    assert transport.done == ["write_eof"]
    assert echoed(parse(bytes(transport.written))) == {1: b"late"}
