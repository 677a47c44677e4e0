"""Open loop: requests leave at instants fixed beforehand, whether or not earlier ones were answered.

Latency counts from the intended instant, so that a stall shows in every request that it delayed (no coordinated
omission). What sends is a small program in C (``pacer.c``), because it shares its core with the store: what it takes
there is in every latency.
"""

import array
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from tidegate.stack.ports import LOOPBACK
from tools.bench.errors import BenchError
from tools.bench.machine import bound_to
from tools.bench.seen import Seen

Arrivals = Literal["even", "poisson"]
SOURCE = Path(__file__).with_name("pacer.c")
WARM_UP_S = 0.5
DRAIN_S = 5.0
NS = 1_000_000_000


class Plan(NamedTuple):
    """What to send: ``rate`` requests a second for ``seconds``, after a short warm-up at the same rate."""

    port: int
    path: str
    bodies: str
    rate: float
    seconds: float
    connections: int
    arrivals: Arrivals


def drive(plan: Plan, core: int) -> Seen:
    """Send everything from a core, wait for the last answers. Raises ``BenchError`` when one was refused or lost."""
    with tempfile.TemporaryDirectory(prefix="tidegate-open-loop-") as directory, bound_to(core):
        return run(plan, Path(directory))


def run(plan: Plan, directory: Path) -> Seen:
    """The same from here; ``directory`` is for the program and what it reads and writes."""
    requests, schedule, result = (directory / name for name in ("requests", "instants", "result"))
    pacer = compiled(SOURCE, directory)
    requests.write_bytes(b"".join(len(one).to_bytes(4, sys.byteorder) + one for one in requests_of(plan)))
    instants = array.array("q", instants_of(plan, 0, int((WARM_UP_S + plan.seconds) * NS)))
    schedule.write_bytes(instants.tobytes())
    command: list[str | Path] = [
        pacer, str(plan.port), str(plan.connections), requests, schedule, result, str(int(DRAIN_S * 1_000)),
    ]  # fmt: skip
    timeout_s = WARM_UP_S + plan.seconds + 2 * DRAIN_S
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"the open-loop generator did not end within {timeout_s:.0f} s") from None
    if ran.returncode:
        raise BenchError(f"the open-loop generator failed: {ran.stderr[-2_000:]}")
    noted = array.array("q", result.read_bytes())
    counts_from = next(at for at, due in enumerate(instants) if due >= WARM_UP_S * NS)
    latencies, lateness = sorted(noted[2 * counts_from :: 2]), sorted(noted[2 * counts_from + 1 :: 2])
    return Seen(
        requests=len(latencies), all_requests=len(instants), seconds=plan.seconds,
        p50_us=_percentile_us(latencies, 0.5), p99_us=_percentile_us(latencies, 0.99),
        p999_us=_percentile_us(latencies, 0.999), late_p99_us=_percentile_us(lateness, 0.99),
        offered_per_s=plan.rate,
    )  # fmt: skip


def compiled(source: Path, directory: Path) -> Path:
    """A generator made from its source. Raises ``BenchError``."""
    target = directory / source.stem
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise BenchError("no C compiler: the open-loop generator is in C (Debian: apt install gcc libc6-dev)")
    command: list[str | Path] = [compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", target, source]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if ran.returncode:
        raise BenchError(f"{source.name} does not compile: {ran.stderr[-2_000:]}")
    return target


def instants_of(plan: Plan, began: int, ends: int) -> Iterator[int]:
    """When each request is to leave (ns)."""
    gap = NS / plan.rate
    at = float(began)
    randomly = random.Random(1)
    while at < ends:
        yield int(at)
        at += gap if plan.arrivals == "even" else randomly.expovariate(1) * gap


def requests_of(plan: Plan) -> list[bytes]:
    bodies = Path(plan.bodies).read_bytes().splitlines()
    head = f"POST {plan.path} HTTP/1.1\r\nHost: {LOOPBACK}\r\nContent-Type: application/json\r\nContent-Length: "
    return [head.encode() + str(len(body)).encode() + b"\r\n\r\n" + body for body in bodies]


def _percentile_us(ordered: list[int], share: float) -> float:
    if not ordered:
        raise BenchError("nothing was answered")
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1_000
