"""One pipelined connection for what is not a decision. Tasks share it: commands of all are answered in their order.

redis-py's pool takes more CPU for a command, and commands are most of what an idle agent does.
"""

import asyncio
from collections.abc import Sequence

import hiredis
from redis.asyncio.connection import DefaultParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from data_plane.store.ports import Argument, Reply
from data_plane.store.redis.calls import Link, pack_command
from data_plane.store.redis.connect import Connector


class _Replies:
    """The replies to the commands of one call; ``future`` has them once all are there."""

    def __init__(self, number: int) -> None:
        self._replies: list[Reply] = []
        self._number = number
        self.future: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()

    def on_reply(self, reply: object) -> None:
        """Take the next reply; errors as redis-py's exceptions."""
        if isinstance(reply, hiredis.ReplyError):
            reply = DefaultParser.parse_error(str(reply))  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        self._replies.append(reply)
        if len(self._replies) == self._number and not self.future.done():
            self.future.set_result(self._replies)

    def fail(self, error: RedisError) -> None:
        """End the wait, if replies are missing."""
        if not self.future.done():
            self.future.set_exception(error)


class SideLink:
    """Connects on first use, and again after a loss. ``timeout_s`` bounds connecting, and a call."""

    def __init__(self, connector: Connector, timeout_s: float) -> None:
        self._connector = connector
        self._timeout_s = timeout_s
        self._link: Link | None = None
        self._connecting = asyncio.Lock()
        self._closed = asyncio.Event()

    async def ask(self, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        """The replies in order, errors among them. Raises redis-py's ``RedisError``, ``OSError``.

        Commands are sent again once if the connection breaks: they must bear to run twice.
        """
        try:
            return await self._ask(commands)
        except RedisConnectionError:
            return await self._ask(commands)

    async def close(self) -> None:
        """Disconnect for good; calls that wait fail."""
        self._closed.set()
        link = self._link
        if link is not None:
            self._on_lost(link)
            await link.close()

    async def _ask(self, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        link = self._link or await self._connected()
        replies = _Replies(len(commands))
        link.send(b"".join(map(_packed, commands)), (replies,) * len(commands))
        # cheaper than asyncio.timeout, which idle agents would enter ten times a second
        timer = asyncio.get_running_loop().call_later(self._timeout_s, self._late, link, replies)
        try:
            found = await replies.future
        finally:
            timer.cancel()
        if any(isinstance(reply, ReadOnlyError) for reply in found):
            self._drop(link)  # it was the master
        return found

    async def _connected(self) -> Link:
        try:
            async with self._connecting, asyncio.timeout(self._timeout_s):
                if self._closed.is_set():
                    raise RedisConnectionError("the store is closed")
                if self._link is None:
                    connection = await self._connector.log_in()
                    if self._closed.is_set():
                        await connection.disconnect(nowait=True)
                        raise RedisConnectionError("the store is closed")
                    self._link = Link(connection, self._on_lost)
                return self._link
        except TimeoutError:
            raise RedisTimeoutError(f"no connection within {self._timeout_s} s") from None

    def _late(self, link: Link, replies: _Replies) -> None:
        replies.fail(RedisTimeoutError(f"no answer within {self._timeout_s} s"))
        self._drop(link)

    def _drop(self, link: Link) -> None:
        if self._link is link:
            self._link = None
        link.drop()

    def _on_lost(self, link: Link) -> None:
        if self._link is link:
            self._link = None
        for taker in link.waiting:
            if isinstance(taker, _Replies):
                taker.fail(RedisConnectionError("the connection was lost"))


def _packed(command: Sequence[Argument]) -> bytes:
    name, *arguments = command
    return pack_command(*str(name).split(), *arguments)
