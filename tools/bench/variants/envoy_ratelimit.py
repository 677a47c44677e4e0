"""Envoy's rate limit service in Go, on the same store: what `python -m tools.bench.rls` compares with.

`make bench-peers` installs it by its module path.
"""

import contextlib
from collections.abc import Iterator
from urllib.parse import urlsplit

import grpc

from tidegate.stack.child import Child, wait_until_ready
from tidegate.stack.ports import LOOPBACK, free_ports
from tools.bench.machine import bound_to, favour
from tools.bench.place import READY_TIMEOUT_S, Place

PROGRAM = "service_cmd"
RULES = """\
domain: bench
descriptors:
- key: api_key
  descriptors:
  - key: remote_address
    descriptors:
    - key: method
      descriptors:
      - key: path
        rate_limit: {unit: hour, requests_per_unit: 1000000000}
"""
"""One limit an hour for each key, as the plan with one limit has it."""


@contextlib.contextmanager
def running(place: Place, path: str) -> Iterator[tuple[int, int]]:
    """Start it on the core of servers; its process id, and the port of its gRPC service."""
    rules = place.directory / "ratelimit" / "config"
    rules.mkdir(parents=True)
    (rules / "tools.bench.yaml").write_text(RULES)
    grpc_port, http_port, debug_port = free_ports(3)
    store = urlsplit(place.store.url)
    env = {
        "RUNTIME_ROOT": str(place.directory), "RUNTIME_SUBDIRECTORY": "ratelimit", "RUNTIME_IGNOREDOTFILES": "true",
        "RUNTIME_WATCH_ROOT": "false", "USE_STATSD": "false", "LOG_LEVEL": "error",
        "HOST": LOOPBACK, "PORT": str(http_port), "GRPC_HOST": LOOPBACK, "GRPC_PORT": str(grpc_port),
        "DEBUG_HOST": LOOPBACK, "DEBUG_PORT": str(debug_port),
        "REDIS_SOCKET_TYPE": "tcp", "REDIS_URL": f"{store.hostname}:{store.port}", "REDIS_AUTH": store.password or "",
        "BACKEND_TYPE": "redis",
    }  # fmt: skip
    child = Child("envoyproxy/ratelimit", [path], env=env, log_path=place.directory / "ratelimit.log")
    with bound_to(place.cores.server):
        child.start()
        favour(child.pid)
    try:
        wait_until_ready(child, lambda: _accepts(grpc_port), timeout_s=READY_TIMEOUT_S)
        yield child.pid, grpc_port
    finally:
        child.stop()


def _accepts(port: int) -> bool:
    with grpc.insecure_channel(f"{LOOPBACK}:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=0.5)
        except grpc.FutureTimeoutError:
            return False
    return True
