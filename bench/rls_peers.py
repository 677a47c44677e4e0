"""Go programs beside a node in `bench.rls`: envoyproxy/ratelimit as a peer, ghz as a client; each where it is there."""

import contextlib
import itertools
import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.json_format import MessageToDict
from rich.console import Console

from bench.machine import bound_to, favour, process_cpu_s
from bench.place import READY_TIMEOUT_S, Place
from bench.workload import Caller, callers
from tidegate.stack.child import Child, wait_until_ready
from tidegate.stack.ports import LOOPBACK, free_ports

TOOLS = Path(__file__).parents[1] / ".cache" / "bin"
PEER = "service_cmd"
"""What ``go install github.com/envoyproxy/ratelimit/src/service_cmd@latest`` makes; put it into ``.cache/bin``."""
PEER_CONFIG = """
domain: bench
descriptors:
  - key: api_key
    descriptors:
      - key: remote_address
        descriptors:
          - key: method
            descriptors:
              - key: path
                rate_limit: { unit: hour, requests_per_unit: 1000000000 }
"""
GHZ_S = 3


class Peer(NamedTuple):
    """A running peer."""

    port: int
    pid: int


def _tool(name: str) -> str | None:
    return shutil.which(name, path=str(TOOLS)) or shutil.which(name)


@contextlib.contextmanager
def envoy_ratelimit(place: Place, directory: Path) -> Iterator[Peer | None]:
    """The Go service on the same store, one limit a caller; ``None`` where it is not installed."""
    program = _tool(PEER)
    if program is None:
        yield None
        return
    config = directory / "ratelimit" / "config"
    config.mkdir(parents=True)
    (config / "bench.yaml").write_text(PEER_CONFIG)
    port, http, debug = free_ports(3)
    env = {
        "HOST": LOOPBACK, "GRPC_HOST": LOOPBACK, "DEBUG_HOST": LOOPBACK, "GRPC_PORT": str(port), "PORT": str(http),
        "DEBUG_PORT": str(debug), "USE_STATSD": "false", "LOG_LEVEL": "error", "REDIS_SOCKET_TYPE": "tcp",
        "REDIS_URL": f"{LOOPBACK}:{place.store.port}", "REDIS_AUTH": urlsplit(place.store.url).password or "",
        "RUNTIME_ROOT": str(directory), "RUNTIME_SUBDIRECTORY": "ratelimit", "RUNTIME_WATCH_ROOT": "false",
        "GOMAXPROCS": "1",
    }  # fmt: skip
    child = Child("envoyproxy/ratelimit", [program], env=env, log_path=directory / "ratelimit.log")
    with bound_to(place.cores.server):
        child.start()
        favour(child.pid)
    try:
        wait_until_ready(child, lambda: _listens(port), timeout_s=READY_TIMEOUT_S)
        yield Peer(port, child.pid)
    finally:
        child.stop()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
        return True
    return False


def print_ghz(pid: int, address: str, directory: Path, core: int, request: Callable[[Caller], Any]) -> None:
    """What ghz makes of the node, with a deadline on every call (another header block each) and without."""
    program = _tool("ghz")
    if program is None:
        return
    (directory / "protoset").write_bytes(_protoset())
    asked = [
        MessageToDict(request(one), preserving_proto_field_name=True) for one in itertools.islice(callers("one"), 1_000)
    ]
    (directory / "data.json").write_text(json.dumps(asked))
    for timeout in ("0", "20s"):
        command = [
            program, "--insecure", "--protoset", directory / "protoset", "--data-file", directory / "data.json",
            "--call", "envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit", "--concurrency", "64",
            "--connections", "8", "--duration", f"{GHZ_S}s", "--duration-stop", "wait", "--timeout", timeout,
            "--format", "json", address,
        ]  # fmt: skip
        cpu_s = process_cpu_s(pid)
        with bound_to(core):
            ran = subprocess.run(command, capture_output=True, text=True, check=True)
        seen = json.loads(ran.stdout)
        cpu_us = (process_cpu_s(pid) - cpu_s) / seen["count"] * 1e6
        Console(width=140).print(
            f"ghz, deadline {timeout}: {cpu_us:.1f} µs CPU a call, {seen['rps']:,.0f}/s,"
            f" {seen['statusCodeDistribution']}"
        )


def _protoset() -> bytes:
    """What the protocol's messages are made of, with everything they import."""
    files, seen = FileDescriptorSet(), set()

    def add(file: Any) -> None:
        if file.name not in seen:
            seen.add(file.name)
            for one in file.dependencies:
                add(one)
            file.CopyToProto(files.file.add())

    add(rls_pb2.DESCRIPTOR)
    encoded: bytes = files.SerializeToString()
    return encoded
