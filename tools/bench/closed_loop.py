"""Closed loop: wrk keeps every connection busy with one request at a time."""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import msgspec

from tools.bench.errors import BenchError
from tools.bench.machine import bound_to, tool
from tools.bench.seen import Seen

SCRIPT = Path(__file__).with_name("wrk.lua")
TIMEOUT_S = 5


class _Printed(msgspec.Struct, frozen=True):
    """The line that wrk.lua prints."""

    requests: int
    duration_us: int
    unwanted: int
    """Answers with another status than the right one."""
    socket_errors: int
    p50_us: float
    p99_us: float
    p999_us: float


class Load(NamedTuple):
    """What to send, over how many connections and for how long.

    ``lines`` are bodies to POST, or with ``subrequests`` what to ask by GET; with ``denies`` 429 is right, else 200.
    ``others`` is the part of answers that may have another status.
    """

    url: str
    path: str
    lines: Path
    connections: int
    seconds: int
    subrequests: bool = False
    denies: bool = False
    others: float = 0.0


def drive(load: Load, core: int) -> Seen:
    """Run wrk to its end. Raises ``BenchError`` when a request was refused or lost."""
    wrk = tool("wrk")
    if wrk is None:
        raise BenchError("wrk is missing: it makes the load (Debian: apt install wrk)")
    command: list[str | Path] = [
        wrk, "--threads", "1", "--connections", str(load.connections), "--duration", f"{load.seconds}s",
        "--timeout", f"{TIMEOUT_S}s", "--script", SCRIPT, load.url, "--", load.path, load.lines,
        "GET" if load.subrequests else "POST", "429" if load.denies else "200",
    ]  # fmt: skip
    timeout_s = load.seconds + 4 * TIMEOUT_S
    try:
        with bound_to(core):
            ran = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"wrk did not end within {timeout_s} s") from None
    found = re.search(r"^RESULT (.+)$", ran.stdout, re.MULTILINE)
    if ran.returncode or found is None:
        raise BenchError(f"wrk failed ({ran.returncode}): {ran.stdout}{ran.stderr}")
    printed = msgspec.json.decode(found.group(1), type=_Printed)
    if printed.unwanted > load.others * printed.requests or printed.socket_errors or not printed.requests:
        raise BenchError(f"{load.url}{load.path} did not answer every request: {printed}")
    return Seen(
        requests=printed.requests, all_requests=printed.requests, seconds=printed.duration_us / 1e6,
        p50_us=printed.p50_us, p99_us=printed.p99_us, p999_us=printed.p999_us,
    )  # fmt: skip
