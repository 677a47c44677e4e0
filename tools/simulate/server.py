"""A region's store in virtual time: the key space and the scripts that nodes run without their store, behind the calls
that services and adapters make of a ``RedisCounterStore``.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Protocol

from data_plane.store.keyspace import Argument, CommandError, Keyspace, text_of
from data_plane.store.packing import FIGURES, decode_figures
from data_plane.store.ports import CounterCheck, ScriptCall, StoreUnavailableError
from data_plane.store.redis.server import ServerFacts
from data_plane.store.redis.topology import DIRTY_KEY
from data_plane.store.script_host import ScriptError, ScriptHost
from data_plane.store.scripts import decide_script

MAX_KEYS = 1_000_000
WAY_S = 0.000_2
"""From a process to its store, one way."""
RECONNECT_S = 0.05
KEEPS_US = 5_000_000
Join = Callable[[Callable[..., Awaitable[object]], ServerFacts], Awaitable[None]]


class Process(Protocol):
    """A process that uses a store; it may be dead, or stopped."""

    @property
    def is_running(self) -> bool:
        """Whether the process is neither dead nor stopped."""
        ...

    async def awake(self) -> None:
        """Return once the process is neither dead nor stopped."""
        ...


class SimulatedServer:
    """One Redis server. A stop or a restart breaks every connection."""

    def __init__(self, host: ScriptHost, now_us: Callable[[], int], name: str, policy: str) -> None:
        self._host = host
        self._now_us = now_us
        self._name = name
        self._runs = 0
        self._past: deque[tuple[int, Keyspace]] = deque()
        self.policy = policy
        self.is_up = True
        self.keyspace = Keyspace(now_us, MAX_KEYS)
        self.run_id = ""
        self.generation = 0
        """Of its connections: it grows when all of them break, and each remembers the one that it was made in."""
        self.waiters: list[asyncio.Future[None]] = []
        """Commands that wait for an item of a list."""
        self._connected: list[asyncio.Future[None]] = []
        self._restarted()

    def stop(self) -> None:
        """Stop the server."""
        self.is_up = False
        self._break()

    def start(self, keyspace: Keyspace | None = None) -> None:
        """Start the server again, with these keys or with those that it had."""
        if keyspace is not None:
            self.keyspace = keyspace
        self._restarted()

    async def broken(self) -> None:
        """Return once all connections have broken."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._connected.append(waiter)
        await waiter

    def empty(self) -> Keyspace:
        """A key space with nothing in it."""
        return Keyspace(self._now_us, MAX_KEYS)

    def execute(self, *command: Argument) -> Any:
        """One command, now. Raises ``StoreUnavailableError``."""
        if not self.is_up:
            raise StoreUnavailableError("ConnectionError")
        name = text_of(command[0]).upper()
        if name in {b"EVAL", b"EVALSHA"}:
            count = int(command[2])
            return self.run(str(command[1]), [text_of(key) for key in command[3 : 3 + count]], command[3 + count :])
        try:
            reply = self.keyspace.execute(*command)
        except CommandError as error:
            raise StoreUnavailableError("ResponseError") from error
        if name in {b"RPUSH", b"LPUSH"}:
            waiters, self.waiters = self.waiters, []
            for waiter in waiters:
                _end(waiter)
        return _reply(reply)

    def run(self, source: str, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Any:
        """One script, now. Raises ``StoreUnavailableError``."""
        if not self.is_up:
            raise StoreUnavailableError("ConnectionError")
        try:
            return self._host.run(self.keyspace, source, keys, arguments)
        except ScriptError as error:
            raise StoreUnavailableError("ResponseError") from error

    def remember(self, now_us: int) -> None:
        """Keep a copy for a later restore."""
        copy = self.empty()
        self.keyspace.copy_into(copy)
        self._past.append((now_us, copy))
        while self._past[0][0] < now_us - KEEPS_US:
            self._past.popleft()

    def copy_of(self, when_us: int) -> Keyspace:
        """The newest copy that is not younger than ``when_us``; an empty one where there is none."""
        older = [copy for at_us, copy in self._past if at_us <= when_us]
        found = self.empty()
        if older:
            older[-1].copy_into(found)
        return found

    def _restarted(self) -> None:
        self._runs += 1
        self.run_id = f"{self._name}-{self._runs}"
        self._break()
        self.is_up = True

    def _break(self) -> None:
        self.generation += 1
        connected, self._connected = self._connected, []
        for waiter in connected:
            _end(waiter)


class StoreConnection:
    """A process's connection to its region's store. Every call takes time each way, and ends with the process."""

    def __init__(
        self, server: SimulatedServer, process: Process, join: Join | None, true_us: Callable[[], int]
    ) -> None:
        self.settings = SimpleNamespace(shape="standalone")
        self.stats = SimpleNamespace(connects=1)
        self.ran_us = 0
        """The true time of the script call whose decisions are being answered."""
        self._server = server
        self._process = process
        self._join = join
        self._true_us = true_us
        self._joined = -1
        self._pending: list[CounterCheck] = []
        self._flushing: asyncio.Task[None] | None = None
        self._script = decide_script()

    # Decisions

    def submit(self, check: CounterCheck) -> None:
        """Decide as soon as possible."""
        self._pending.append(check)
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_task(self._flush())

    def submit_all(self, checks: Sequence[CounterCheck]) -> None:
        """Decide many checks."""
        for check in checks:
            self.submit(check)

    async def _flush(self) -> None:
        await self._way()
        checks, self._pending, self._flushing = self._pending, [], None
        try:
            await self._connect()
            keys = [DIRTY_KEY, *(key for check in checks for key in check.keys)]
            reply = self._server.run(self._script, keys, [check.packed for check in checks])
        except StoreUnavailableError as error:
            for check in checks:
                check.failed(error, 0)
            return
        ran_us = self._true_us()
        await self._way()
        figures, at = decode_figures(reply), 1
        for check in checks:
            self.ran_us = ran_us
            check.done(figures, at, 0)
            at += FIGURES * len(check.keys)

    async def _connect(self) -> None:
        """Join the server as it is now, before any decision there."""
        while self._joined != self._server.generation:
            generation = self._server.generation
            if not self._server.is_up:
                raise StoreUnavailableError("ConnectionError")
            if self._join is not None:
                await self._join(self.execute, self.facts())
            self._joined = generation

    async def keep_connected(self) -> None:
        """Connect, and connect again whenever connections break, for ever."""
        while True:
            with contextlib.suppress(StoreUnavailableError):
                await self._connect()
            if self._joined == self._server.generation:
                await self._server.broken()
            await asyncio.sleep(RECONNECT_S)

    def facts(self) -> ServerFacts:
        """The server's run id and eviction policy."""
        return ServerFacts(run_id=self._server.run_id, maxmemory_policy=self._server.policy)

    # Beside them

    async def execute(self, *command: Argument) -> Any:
        """One command."""
        await self._way()
        if text_of(command[0]).upper() == b"BLPOP":
            return await self._blpop(text_of(command[1]), float(command[2]))
        reply = self._server.execute(*command)
        await self._way()
        return reply

    async def call_script(self, source: str, keys: Sequence[bytes], args: Sequence[Argument]) -> Any:
        """One script."""
        await self._way()
        reply = self._server.run(source, keys, args)
        await self._way()
        return reply

    async def execute_all(self, commands: Sequence[Sequence[Argument] | ScriptCall]) -> list[Any]:
        """Many commands and scripts in one round trip."""
        await self._way()
        replies = [
            self._server.run(*command) if isinstance(command, ScriptCall) else self._server.execute(*command)
            for command in commands
        ]
        await self._way()
        return replies

    async def scan(self, cursor: str, pattern: str, count: int) -> tuple[str, list[bytes]]:
        """A page of all keys."""
        await self._way()
        if not self._server.is_up:
            raise StoreUnavailableError("ConnectionError")
        following, keys = self._server.keyspace.scan(int(cursor or 0), pattern, count)
        await self._way()
        return (str(following) if following else ""), keys

    async def info(self) -> Sequence[Mapping[str, Any]]:
        """``INFO``."""
        await self._way()
        if not self._server.is_up:
            raise StoreUnavailableError("ConnectionError")
        return [{"run_id": self._server.run_id, "maxmemory_policy": self._server.policy}]

    def take_touched(self) -> set[int]:
        """There are no slots."""
        return set()

    def dirty_key_beside(self, key: bytes) -> bytes:  # noqa: ARG002 - one server has one
        """The dirty set."""
        return DIRTY_KEY

    slot_key_beside = dirty_key_beside

    def dirty_key_of_slot(self, slot: int) -> bytes:  # noqa: ARG002 - one server has one
        """The dirty set."""
        return DIRTY_KEY

    async def _blpop(self, key: bytes, timeout_s: float) -> Any:
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + timeout_s
        while True:
            found = self._server.execute("LPOP", key)
            if found is not None:
                await self._way()
                return [key, found]
            left_s = ends_s - loop.time()
            if left_s <= 0:
                return None
            waiter: asyncio.Future[None] = loop.create_future()
            self._server.waiters.append(waiter)
            timer = loop.call_later(left_s, _end, waiter)
            await waiter
            timer.cancel()
            await self._process.awake()

    async def _way(self) -> None:
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(WAY_S, _end, arrived)
        try:
            await arrived
        finally:
            timer.cancel()
        if not self._process.is_running:
            await self._process.awake()


def _end(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


def _reply(reply: object) -> Any:
    """A reply as redis-py reads it."""
    if reply is False:
        return None
    return [_reply(one) for one in reply] if isinstance(reply, list) else reply
