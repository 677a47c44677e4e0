"""The store's side client, for what is not a decision: a connection of its own, or redis-py on a Cluster."""

import asyncio
import functools
import hashlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar, cast

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import parse_url
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from data_plane.store.ports import Argument, Reply, ScriptCall, StoreUnavailableError
from data_plane.store.redis.connect import connection_options
from data_plane.store.redis.settings import RedisSettings
from data_plane.store.redis.side_link import SideLink

P = ParamSpec("P")
T = TypeVar("T")
BLOCKING = frozenset({"BLPOP", "XREAD"})
BLOCK_S = 2.0
"""The longest time for which a command may block (seconds)."""


def _store_errors(ask: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Raise ``StoreUnavailableError`` for any error of redis-py or of the network, and where time is up.

    A Cluster without a server, or a slot without one, is an error of redis-py that is no ``RedisError``.
    """

    @functools.wraps(ask)
    async def asked(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await ask(*args, **kwargs)
        except (RedisError, RedisClusterException, OSError) as error:
            raise StoreUnavailableError(type(error).__name__) from error

    return asked


class SideClient:
    """Commands and scripts beside the hot pipeline. Raises ``StoreUnavailableError``; connects on first use.

    A call is sent again when the connection breaks: scripts, and commands beside them, must bear to run twice. On a
    Cluster all keys of a script share a slot. ``link`` carries calls unless they block; ``None`` on a Cluster.
    """

    def __init__(self, settings: RedisSettings, sentinel: Sentinel | None, link: SideLink | None = None) -> None:
        self._client = _make_client(settings, sentinel)
        self._patient = _make_client(settings, sentinel, BLOCK_S)
        """For commands that block."""
        self._link = link
        self._within_s = 2 * settings.connect_timeout_ms / 1_000
        self._shas: dict[str, str] = {}

    @_store_errors
    async def execute(self, *args: Argument) -> Reply:
        """One command; the reply as redis-py reads it."""
        async with self._bounded(BLOCK_S if args[0] in BLOCKING else 0.0):
            return await self._execute(*args)

    @_store_errors
    async def call_script(self, source: str, keys: Sequence[bytes], args: Sequence[Argument]) -> Reply:
        """Run a script by its hash, sending its text once when the server does not know it."""
        async with self._bounded():
            return await self._call(ScriptCall(source, keys, args))

    @_store_errors
    async def execute_all(self, commands: Sequence[Sequence[Argument] | ScriptCall]) -> list[Reply]:
        """Many commands and scripts in one round trip to each server; the first error is raised."""
        async with self._bounded():
            return await self._execute_all(commands)

    @_store_errors
    async def scan(self, cursor: str, pattern: str, count: int) -> tuple[str, list[bytes]]:
        """A page of the keys of all servers, one after the other; '' begins, and is what the last page answers."""
        async with self._bounded():
            return await self._scan(cursor, pattern, count)

    @_store_errors
    async def info(self) -> Sequence[Mapping[str, Any]]:
        """``INFO`` of each server that holds counters, numbers as numbers."""
        async with self._bounded():
            return await self._info()

    def _bounded(self, blocks_s: float = 0.0) -> asyncio.Timeout:
        """The bound of a call: two time-outs and the time that it may block. By itself redis-py tries eleven times."""
        return asyncio.timeout(self._within_s + blocks_s)

    async def _execute_all(self, commands: Sequence[Sequence[Argument] | ScriptCall]) -> list[Reply]:
        packed = [self._by_hash(command) if isinstance(command, ScriptCall) else command for command in commands]
        try:
            if self._link is not None:
                return await self._ask(self._link, packed)
            pipeline: Any = self._client.pipeline(transaction=False)
            for command in packed:
                pipeline.execute_command(*command)
            replies: list[Reply] = await pipeline.execute()
        except NoScriptError:
            return [
                await (self._call(command) if isinstance(command, ScriptCall) else self._execute(*command))
                for command in commands
            ]
        return replies

    async def _call(self, call: ScriptCall) -> Reply:
        try:
            return await self._execute(*self._by_hash(call))
        except NoScriptError:
            return await self._execute("EVAL", call.source, len(call.keys), *call.keys, *call.arguments)

    async def _execute(self, *args: Argument) -> Reply:
        if args[0] in BLOCKING:
            return await self._patient.execute_command(*args)
        if self._link is None:
            return await self._client.execute_command(*args)
        return (await self._ask(self._link, [args]))[0]

    async def _ask(self, link: SideLink, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        """Replies as redis-py reads them; the first error is raised."""
        if not commands:
            return []
        replies = await link.ask(commands)
        read = self._client.response_callbacks
        for at, reply in enumerate(replies):
            if isinstance(reply, Exception):
                raise reply
            name = str(commands[at][0])
            if name in read:
                replies[at] = read[name](reply)
        return replies

    async def _scan(self, cursor: str, pattern: str, count: int) -> tuple[str, list[bytes]]:
        client: Any = self._client
        if not isinstance(client, RedisCluster):
            following, keys = await self._execute("SCAN", cursor or 0, "MATCH", pattern, "COUNT", count)
            return "" if int(following) == 0 else str(int(following)), keys
        await client.initialize()
        primaries = {primary.name: primary for primary in client.get_primaries()}
        name, _, at = cursor.rpartition(" ")
        names = sorted(other for other in primaries if other >= name)
        if not names:  # the last server is gone
            return "", []
        if names[0] != name:
            name, at = names[0], "0"
        # not redis-py's own way to many servers: its reply to SCAN has other shapes for one of them than for all
        following, keys = await primaries[name].execute_command("SCAN", at, "MATCH", pattern, "COUNT", count)
        if int(following):
            return f"{name} {int(following)}", keys
        return (f"{names[1]} 0" if len(names) > 1 else ""), keys

    async def _info(self) -> Sequence[Mapping[str, Any]]:
        client: Any = self._client  # redis-py leaves its method untyped
        if not isinstance(client, RedisCluster):
            return [await self._execute("INFO")]
        answers = await client.execute_command("INFO", target_nodes=RedisCluster.PRIMARIES)
        # one primary answers by itself, several by name
        return [answers] if "redis_version" in answers else list(answers.values())

    async def close(self) -> None:
        """Close its connections."""
        if self._link is not None:
            await self._link.close()
        await self._patient.aclose()
        await self._client.aclose()

    def _by_hash(self, call: ScriptCall) -> Sequence[Argument]:
        return ("EVALSHA", self._sha_of(call.source), len(call.keys), *call.keys, *call.arguments)

    def _sha_of(self, source: str) -> str:
        sha = self._shas.get(source)
        if sha is None:
            sha = self._shas[source] = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        return sha


def _make_client(settings: RedisSettings, sentinel: Sentinel | None, patience_s: float = 0.0) -> Redis | RedisCluster:
    options = {"protocol": 2, **connection_options(settings)}
    options["socket_timeout"] += patience_s
    secure = settings.url.startswith("rediss://")
    if sentinel is not None:
        address = ("host", "port", "path")
        options = {name: value for name, value in options.items() if name not in address}
        return cast("Redis", sentinel.master_for(settings.master_name, ssl=secure, **options))
    if settings.shape == "cluster":
        options.pop("db", None)
        seeds = [ClusterNode(options.pop("host", "localhost"), options.pop("port", 6379))]
        seeds += [ClusterNode(host, port) for host, port in settings.cluster_nodes]
        return RedisCluster(startup_nodes=seeds, ssl=secure, **options)
    if "path" in parse_url(settings.url):
        options["unix_socket_path"] = options.pop("path")
    return Redis(ssl=secure, **options)
