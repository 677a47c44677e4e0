"""ghz, gRPC's load generator in Go, as a client in `bench.rls`: where `make go-tools` has installed it."""

import itertools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.json_format import MessageToDict
from rich.console import Console

from testing.go_tools import installed
from tools.bench.machine import bound_to, process_cpu_s
from tools.bench.workload import Caller, callers

GHZ_S = 3


def print_ghz(pid: int, address: str, directory: Path, core: int, request: Callable[[Caller], Any]) -> None:
    """What ghz makes of the node, with a deadline on every call (another header block each) and without."""
    program = installed("ghz")
    if program is None:
        return
    (directory / "protoset").write_bytes(protoset())
    asked = [
        MessageToDict(request(one), preserving_proto_field_name=True) for one in itertools.islice(callers("one"), 1_000)
    ]
    (directory / "data.json").write_text(json.dumps(asked))
    for timeout in ("0", "20s"):
        command: list[str | Path] = [
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


def protoset() -> bytes:
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
