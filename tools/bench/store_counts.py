"""What the store itself counts: script calls, memory, keys."""

import contextlib
from collections.abc import Iterator

import redis


@contextlib.contextmanager
def store_client(url: str) -> Iterator[redis.Redis]:
    """A plain client beside the one that is measured; loading a million keys must not time out."""
    with redis.Redis.from_url(url, socket_timeout=60) as client:
        yield client


def script_calls(client: redis.Redis) -> int:
    """How many script calls the store has run."""
    stats = client.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "eval"))


def empty(client: redis.Redis) -> None:
    """Remove everything, and wait until its memory is free: by default that is left to a thread."""
    client.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
