"""What the store itself counts: script calls, memory, keys."""

import contextlib
from collections.abc import Iterator

import redis

SLOW_US = 100
SLOW_NOTED = 10_000


@contextlib.contextmanager
def store_client(url: str) -> Iterator[redis.Redis]:
    """A plain client beside the one that is measured; loading a million keys must not time out."""
    with redis.Redis.from_url(url, socket_timeout=60) as client:
        yield client


def script_calls(client: redis.Redis) -> int:
    """How many script calls the store has run."""
    stats = client.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "eval"))


def note_slow_calls(url: str) -> None:
    """Let the store note each command that takes longer than ``SLOW_US``."""
    with store_client(url) as client:
        client.config_set("slowlog-log-slower-than", SLOW_US)
        client.config_set("slowlog-max-len", SLOW_NOTED)


def slow_calls(url: str) -> list[int]:
    """How long each script call took that was noted, in microseconds, in order of size."""
    with store_client(url) as client:
        return sorted(one["duration"] for one in client.slowlog_get(SLOW_NOTED) if b"EVAL" in one["command"])


def empty(client: redis.Redis) -> None:
    """Remove everything, and wait until its memory is free: by default that is left to a thread."""
    client.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
