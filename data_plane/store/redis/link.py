"""One pipelined connection: bytes out, replies in, matched in order. Knows nothing of scripts or decisions.

redis-py connects (TLS, AUTH, ACL, HELLO, SELECT); then this protocol takes over the transport. That skips redis-py's
per-command layer and asyncio's streams, whose reader task costs a wake-up for every reply.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

import hiredis
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection

_INCOMPLETE = object()


def pack_command(*parts: bytes | str | int) -> bytes:
    """A command in RESP."""
    packed: bytes = hiredis.pack_command(cast("Any", parts))  # its stub wants tuples of length one
    return packed


class ReplyTaker(Protocol):
    """Whoever waits for a reply."""

    def on_reply(self, reply: object) -> None:
        """Take the reply: bytes, int, list, None, or a ``hiredis.ReplyError``."""
        ...


class _Detachable(AbstractConnection):
    """A redis-py connection whose transport can be handed to another protocol once it is logged in."""

    def hand_over(self, taker: asyncio.Protocol) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Point the transport at ``taker``; returns the transport and the protocol that it had."""
        writer = self._writer
        if writer is None:
            raise ConnectionError("the connection was lost before it could be used")
        transport = cast("asyncio.Transport", writer.transport)
        former = transport.get_protocol()
        transport.set_protocol(taker)
        transport.resume_reading()
        return transport, former

    def forget(self) -> None:
        """The transport is closed, and not by redis-py: there is nothing left for it to close."""
        self._reader = None
        self._writer = None


class TcpConnection(_Detachable, Connection):
    """Plain TCP."""


class TlsConnection(_Detachable, SSLConnection):
    """TCP with TLS."""


class UnixConnection(_Detachable, UnixDomainSocketConnection):
    """A unix socket."""


AnyConnection = TcpConnection | TlsConnection | UnixConnection


class Link(asyncio.Protocol):
    """The pipelined connection. ``on_lost`` is called once, with all who still wait, unless it was closed by us."""

    def __init__(self, connection: AnyConnection, on_lost: "Callable[[Link], None]") -> None:
        self._connection = connection
        self._on_lost = on_lost
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self.waiting: deque[ReplyTaker | None] = deque()
        self.is_lost = False
        self._transport, self._former = connection.hand_over(self)

    def send(self, packed: bytes, takers: tuple[ReplyTaker | None, ...]) -> None:
        """Write packed commands, one taker a command (``None``: the reply does not matter)."""
        self.waiting.extend(takers)
        if not self._transport.is_closing():
            self._transport.write(packed)

    def drop(self) -> None:
        """Give the connection up at once; ``on_lost`` follows on the loop."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Hand each complete reply to the one who waits for it."""
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not _INCOMPLETE:
                taker = self.waiting.popleft()
                if taker is not None:
                    taker.on_reply(reply)
        except (hiredis.ProtocolError, IndexError):
            # Neither more nor other bytes than were asked for can be trusted to answer the right decision.
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner, and redis-py's stream, whose ``close`` waits for it."""
        self._former.connection_lost(exc)
        self._connection.forget()
        if not self.is_lost:
            self.is_lost = True
            self._on_lost(self)

    def eof_received(self) -> bool:
        """The server hung up: close."""
        return False

    async def close(self) -> None:
        """Close quietly: ``on_lost`` is not called."""
        self.is_lost = True
        self._transport.abort()
        await asyncio.sleep(0)
