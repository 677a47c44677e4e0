"""The store's second door: redis-py's own client, for what is not a decision and may be slow."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import parse_url
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import NoScriptError

from data_plane.adapters.redis.connect import connection_options
from data_plane.adapters.redis.settings import RedisSettings

Argument = bytes | str | int | float
Reply = Any
"""What a command answers depends on the command."""


class SideClient:
    """Commands and scripts beside the hot pipeline. Raises redis-py's ``RedisError``; connects on first use."""

    def __init__(self, settings: RedisSettings, sentinel: Sentinel | None) -> None:
        self._client = _make_client(settings, sentinel)
        self._shas: dict[str, str] = {}

    async def execute(self, *args: Argument) -> Reply:
        """One command; the reply as redis-py reads it."""
        return await self._client.execute_command(*args)

    async def call_script(self, source: str, keys: Sequence[bytes], args: Sequence[Argument]) -> Reply:
        """Run a script by its hash, sending its text once when the server does not know it."""
        sha = self._shas.get(source)
        if sha is None:
            sha = self._shas[source] = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        try:
            return await self.execute("EVALSHA", sha, len(keys), *keys, *args)
        except NoScriptError:
            return await self.execute("EVAL", source, len(keys), *keys, *args)

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
