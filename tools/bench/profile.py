"""Where a server's time goes: ``python -m tools.bench.profile``.

Servers of the benchmark under wrk at 64 connections, looked at from outside: ``perf`` samples which library the
processor is in, and ``strace`` counts calls of the kernel (in a run of its own, as it slows a server down several
times). Both are Debian packages (linux-perf, strace). Writes docs/benchmarks-profile.md.
"""

import re
import signal
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import typer
from rich.console import Console

from tools.bench.closed_loop import Load, drive
from tools.bench.errors import BenchError
from tools.bench.machine import bound_to, describe, process_cpu_s, raise_priority, source_revision, tool
from tools.bench.place import Place, prepared_place
from tools.bench.plan import VARIANTS
from tools.bench.store_counts import empty, store_client
from tools.bench.variant import Server, running
from tools.bench.workload import BATCH

DOCUMENT = Path(__file__).parents[2] / "docs/benchmarks-profile.md"
CONNECTIONS = 64
WARM_UP_S = 3
SAMPLED_S = 6
COUNTED_S = 3
SAMPLES_A_SECOND = 1_999
FEW_CALLS = 2.0
"""Calls that are rarer than that, for 100 decisions, are left out."""
LOOKED_AT = (("nginx", 1), ("lane", 1), ("lane", BATCH), ("lane-auth", 1), ("lane-denied", 1))
"""Servers by name, and checks a request."""
PAGE = """# Where the time goes

Written by `python -m tools.bench.profile` on {day}, at commit {commit}, with Python {python} on {cpu}, {cores}
cores: no figure here was typed by hand.

Servers of [the benchmark](benchmarks.md), {connections} connections, closed loop, one limit. CPU is the server's for a
decision while `perf` looked on, in microseconds; behind it, where the processor was meanwhile.

{parts}

Calls of the kernel for 100 decisions, by `strace`:

{calls}
"""
PARTS = {
    "kernel": r"kernel",
    "Python": r"libpython|python3",
    "C library": r"libc\.so|libm\.so|ld-linux|vdso",
    "event loop": r"^loop\.",
    "JSON": r"^_core\.",
    "store's replies": r"hiredis",
    "deflate": r"libz|zlib",
    "nginx": r"nginx",
}
"""What stands for what, in what ``perf`` calls a shared object."""


class Profile(NamedTuple):
    """``cpu_us`` of the server for a decision, ``parts`` of it by name, and calls of the kernel for 100 decisions."""

    server: str
    batch: int
    cpu_us: float
    parts: Mapping[str, float]
    calls: Mapping[str, float]


def main(priority: int = typer.Option(0, min=0, max=20, help="As for `python -m tools.bench`.")) -> None:
    """Profile the lane and the floor, print and write the document."""
    missing = [name for name in ("perf", "strace", "wrk", "nginx") if tool(name) is None]
    if missing:
        raise SystemExit(f"not installed: {', '.join(missing)} (Debian: linux-perf, strace, wrk, nginx)")
    raise_priority(priority)
    console = Console(stderr=True)
    profiles = []
    with prepared_place() as place:
        for name, batch in LOOKED_AT:
            console.print(f"{name}, {batch} a request")
            profiles.append(_profile(place, name, batch))
    text = _document(profiles)
    DOCUMENT.write_text(text)
    Console().print(text)


def _profile(place: Place, name: str, batch: int) -> Profile:
    variant = next(one for one in VARIANTS if one.name == name)
    with store_client(place.store.url) as client:
        empty(client)
        with running(variant, place) as server:
            _drive(place, server, batch, WARM_UP_S, others=float(variant.denies))
            cpu_us, parts = _sampled(place, server, batch)
            return Profile(name, batch, cpu_us, parts, _counted(place, server, batch))


def _drive(place: Place, server: Server, batch: int, seconds: int, *, others: float = 0.0) -> int:
    """The load of the benchmark for so long; the decisions."""
    variant = server.variant
    path = variant.path if batch == 1 else variant.batch_path or ""
    lines = place.subrequests if variant.subrequests else place.bodies[variant.plans[0], batch]
    load = Load(server.url, path, lines, CONNECTIONS, seconds, variant.subrequests, variant.denies, others)
    return drive(load, place.cores.load).all_requests * batch


def _sampled(place: Place, server: Server, batch: int) -> tuple[float, dict[str, float]]:
    """CPU for a decision in microseconds, and how much of that is spent where."""
    samples = place.directory / "perf.data"
    command = ["perf", "record", "-q", "-F", str(SAMPLES_A_SECOND), "-p", str(server.pid), "-o", str(samples)]
    before = process_cpu_s(server.pid)
    with bound_to(place.cores.load):
        perf = subprocess.Popen([*command, "--", "sleep", str(SAMPLED_S)], stderr=subprocess.DEVNULL)
    try:
        decisions = _drive(place, server, batch, SAMPLED_S)
    finally:
        perf.wait(timeout=4 * SAMPLED_S)
    cpu_us = (process_cpu_s(server.pid) - before) / decisions * 1e6
    shown = subprocess.run(
        ["perf", "report", "-i", samples, "--stdio", "-q", "--sort", "dso"], capture_output=True, text=True, check=True
    ).stdout
    parts: dict[str, float] = defaultdict(float)
    for percent, name in re.findall(r"^\s*([0-9.]+)%\s+(.+?)\s*$", shown, re.MULTILINE):
        part = next((part for part, names in PARTS.items() if re.search(names, name)), "other")
        parts[part] += float(percent) / 100 * cpu_us
    return cpu_us, parts


def _counted(place: Place, server: Server, batch: int) -> dict[str, float]:
    """Calls of the kernel for 100 decisions, by name."""
    counts = place.directory / "strace.txt"
    with bound_to(place.cores.load):
        strace = subprocess.Popen(
            ["strace", "-c", "-f", "-o", str(counts), "-p", str(server.pid)], stderr=subprocess.PIPE, text=True
        )
    if strace.stderr is None or "attached" not in strace.stderr.readline():
        raise BenchError("strace could not look at the server")
    try:
        decisions = _drive(place, server, batch, COUNTED_S)
    finally:
        strace.send_signal(signal.SIGINT)
        strace.communicate(timeout=10)
    lines = [line.split() for line in counts.read_text().splitlines()]
    return {
        words[-1]: int(words[3]) / decisions * 100
        for words in lines
        if len(words) >= 5 and words[3].isdigit() and words[-1] != "total"
    }


def _document(profiles: Sequence[Profile]) -> str:
    machine = describe()
    names = [part for part in (*PARTS, "other") if any(profile.parts.get(part, 0) >= 0.05 for profile in profiles)]
    calls = sorted({call for profile in profiles for call, count in profile.calls.items() if count >= FEW_CALLS})
    cpu = _rows("server", ["CPU µs", *names], [(_name(one), [one.cpu_us, *_of(one.parts, names)]) for one in profiles])
    return PAGE.format(
        day=datetime.now(UTC).date(), commit=source_revision(), python=machine.python, cpu=machine.cpu,
        cores=machine.cores, connections=CONNECTIONS, parts="\n".join(cpu),
        calls="\n".join(_rows("server", calls, [(_name(one), _of(one.calls, calls)) for one in profiles])),
    )  # fmt: skip


def _name(profile: Profile) -> str:
    return profile.server if profile.batch == 1 else f"{profile.server}, {profile.batch} a request"


def _of(figures: Mapping[str, float], names: Sequence[str]) -> list[float]:
    return [figures.get(name, 0.0) for name in names]


def _rows(first: str, names: Sequence[str], rows: Sequence[tuple[str, Sequence[float]]]) -> Iterator[str]:
    yield f"| {first} | {' | '.join(names)} |"
    yield f"|---|{'---|' * len(names)}"
    for name, figures in rows:
        yield f"| {name} | {' | '.join(f'{figure:.1f}' if figure else '-' for figure in figures)} |"


if __name__ == "__main__":
    typer.run(main)
