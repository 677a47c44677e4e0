"""The store's side client: redis-py, for what is not a decision and may be slow."""

import contextlib
import functools
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar, cast

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from data_plane.store.ports import StoreUnavailableError
from data_plane.store.redis.calls import pack_command
from data_plane.store.redis.connect import connection_options
from data_plane.store.redis.settings import RedisSettings

Argument = bytes | str | int | float
Reply = Any
"""What a command answers depends on the command."""
P = ParamSpec("P")
T = TypeVar("T")


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """Raise ``StoreUnavailableError`` for any error of redis-py or of the network."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreUnavailableError(type(error).__name__) from error


def _as_redis_errors(ask: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """No server of a Cluster reached, or a slot without one, is an error of redis-py that is no ``RedisError``."""

    @functools.wraps(ask)
    async def asked(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await ask(*args, **kwargs)
        except RedisClusterException as error:
            raise RedisConnectionError(str(error)) from error

    return asked


class SideClient:
    """Commands and scripts beside the hot pipeline. Raises redis-py's ``RedisError``; connects on first use."""

    def __init__(self, settings: RedisSettings, sentinel: Sentinel | None) -> None:
        self._client = _make_client(settings, sentinel)
        if isinstance(self._client, Redis):
            pool = self._client.connection_pool
            pool.connection_class = _packing(pool.connection_class)
        self._shas: dict[str, str] = {}

    @_as_redis_errors
    async def execute(self, *args: Argument) -> Reply:
        """One command; the reply as redis-py reads it."""
        return await self._client.execute_command(*args)

    async def call_script(self, source: str, keys: Sequence[bytes], args: Sequence[Argument]) -> Reply:
        """Run a script by its hash, sending its text once when the server does not know it."""
        try:
            return await self.execute("EVALSHA", self._sha_of(source), len(keys), *keys, *args)
        except NoScriptError:
            return await self.execute("EVAL", source, len(keys), *keys, *args)

    @_as_redis_errors
    async def execute_all(self, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        """Many commands in one round trip to each server; the first error is raised."""
        pipeline: Any = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Reply] = await pipeline.execute()
        return replies

    async def call_scripts(
        self, source: str, calls: Sequence[tuple[Sequence[bytes], Sequence[Argument]]]
    ) -> list[Reply]:
        """``call_script`` with many keys and arguments, in one round trip to each server."""
        sha = self._sha_of(source)
        try:
            return await self.execute_all([("EVALSHA", sha, len(keys), *keys, *args) for keys, args in calls])
        except NoScriptError:
            return [await self.call_script(source, keys, args) for keys, args in calls]

    @_as_redis_errors
    async def scan(self, cursor: str, pattern: str, count: int) -> tuple[str, list[bytes]]:
        """A page of the keys of all servers, one after the other; '' begins, and is what the last page answers."""
        client: Any = self._client
        if not isinstance(client, RedisCluster):
            following, keys = await client.execute_command("SCAN", cursor or 0, "MATCH", pattern, "COUNT", count)
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

    @_as_redis_errors
    async def info(self) -> Sequence[Mapping[str, Any]]:
        """What each server that holds counters says of itself (``INFO``), numbers as numbers."""
        client: Any = self._client  # redis-py leaves its method untyped
        if not isinstance(client, RedisCluster):
            return [await client.execute_command("INFO")]
        answers = await client.execute_command("INFO", target_nodes=RedisCluster.PRIMARIES)
        # one primary answers by itself, several by name
        return [answers] if "redis_version" in answers else list(answers.values())

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    def _sha_of(self, source: str) -> str:
        sha = self._shas.get(source)
        if sha is None:
            sha = self._shas[source] = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        return sha


class _Packing(AbstractConnection):
    """Packs commands in C. redis-py does it in Python: with hundreds of keys it is the dearest part of a script."""

    def pack_command(self, *args: Any) -> list[bytes]:
        """A command in RESP; its name may be of several words."""
        name = args[0].encode() if isinstance(args[0], str) else args[0]
        return [pack_command(*name.split(), *args[1:])]


def _packing(connection: type[AbstractConnection]) -> type[AbstractConnection]:
    return type(connection.__name__, (_Packing, connection), {})


def _make_client(settings: RedisSettings, sentinel: Sentinel | None) -> Redis | RedisCluster:
    options = connection_options(settings)
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
