"""`python -m tools.bench.modes`: a decision where its limit is shared with a region, and where the store is gone,
beside the plain one, in one run; with ``--write`` it is docs/benchmarks-modes.md.
"""

import argparse
import array
import asyncio
import contextlib
import dataclasses
import itertools
import math
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import track

from tidegate.contract.config import Change, Plan
from tidegate.stack.ports import free_ports
from tidegate.stack.store import StoreServer, valkey_binary
from tools.bench.machine import describe, process_cpu_s, source_revision, stolen_s, woken_at_once
from tools.bench.open_loop import compiled
from tools.bench.place import Place, prepared_place, running_store
from tools.bench.rls import CALLERS, HTTP_PACER, IN_FLIGHT, Target, drive, http_request, record
from tools.bench.snapshot import write_snapshot
from tools.bench.store_counts import SLOW_US, note_slow_calls, slow_calls
from tools.bench.variant import Launch, Variant, python_module, running
from tools.bench.variants import nginx_constant, tidegate_lane, tidegate_shared
from tools.bench.variants.node_settings import node_env
from tools.bench.workload import callers, config_changes

RATES = 500, 2_000, 5_000
LOOPS, LOOP_S = 3, 0.5
"""Open loops of each rate in a turn, and how long one lasts: the shorter, the more of them keep both cores."""
SETTLED_S = 1.5
"""Counts are told within a second: what a turn left is done before the next one."""
PLAIN, SHARED, ALONE, FLOOR = "regional", "shared, one peer", "store gone, local", "nginx answering a constant"
PAGE = """# Benchmarks: a decision by mode

Written by `python -m tools.bench.modes --write docs/benchmarks-modes.md` on {day}, at commit {commit}:
no figure in this file was typed by hand. Read the ratios first.

- All servers are up all the time, each with a store of its own, and are asked one after the other in short turns and
  random order ({turns} turns): what else the machine has to do comes and goes within seconds and concerns all alike.
  {callers:,} clients ask in turn.
- CPU of the node a decision: closed loop, {in_flight} in flight; the median of all turns.
- p99: open loop with Poisson arrivals over {in_flight} connections; the median of loops of {loop_s} s. Loops in which
  the hypervisor took a core away (10 ms and more) are left out: their p99 is that of other guests, several times ours.
- The nodes have one core. Agents, stores and the generator share the other. With `nice -n -10` the node, its store and
  the generator go first, as where agents have a core of their own: otherwise latencies show how long the generator
  waits for an agent's time slice.

Machine: {cpu}, {cores} cores, kernel {kernel}, Python {python}, Valkey {valkey}; niceness {niceness}.

{table}

{ratios}

Store of the node with a peer: {slow} calls over {slow_us} µs, the longest {longest} µs; time in which the machine
did something else counts.
"""


class Asked(NamedTuple):
    """A server that is up, and the store that it asks."""

    target: Target
    store: StoreServer


class Turn(NamedTuple):
    """CPU microseconds a decision in the closed loop, and by rate p99 (milliseconds) of each undisturbed open one."""

    cpu_us: float
    p99_ms: Mapping[int, Sequence[float]]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--write", type=Path, help="the document")
    parser.add_argument("--requests", type=int, default=20_000, help="in the closed loop of a turn")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-modes-")))
        place = stack.enter_context(prepared_place())
        servers = list(_servers(stack, place, directory))
        turns: dict[str, list[Turn]] = {asked.target.title: [] for asked in servers}
        for _ in track(range(arguments.turns), "asking"):
            for asked in random.sample(servers, len(servers)):
                turns[asked.target.title].append(_turn(asked, directory, arguments.requests, place.cores.load))
        shared = next(asked.store for asked in servers if asked.target.title == SHARED)
        page = document(turns, slow_calls(shared.url))
        Console(width=140).print(Markdown(page))
        if arguments.write is not None:
            arguments.write.write_text(page)


def _servers(stack: contextlib.ExitStack, place: Place, directory: Path) -> Iterator[Asked]:
    asked = directory / "asked"
    asked.write_bytes(b"".join(record(http_request(caller)) for caller in itertools.islice(callers("one"), CALLERS)))
    pacer = compiled(HTTP_PACER, directory)
    for title, variant in _variants(directory).items():
        own = directory / variant.name
        store = stack.enter_context(running_store(own, place.cores.load, f"Valkey of {variant.name}", valkey_binary()))
        note_slow_calls(store.url)
        server = stack.enter_context(running(variant, dataclasses.replace(place, store=store)))
        target = Target(title, server.pid, (pacer, str(server.port), str(IN_FLIGHT), asked))
        drive(target, directory, array.array("q", bytes(8 * CALLERS)), place.cores.load)  # the first time costs more
        yield Asked(target, store)


def _variants(directory: Path) -> dict[str, Variant]:
    return {
        PLAIN: tidegate_lane.VARIANT,
        SHARED: tidegate_shared.VARIANT,
        ALONE: dataclasses.replace(
            tidegate_lane.VARIANT, name="lane-alone", launch=_alone(directory), decides_alone=True
        ),
        FLOOR: nginx_constant.VARIANT,
    }


def _alone(directory: Path) -> Callable[[Place, int], Launch]:
    snapshot = directory / "local-snapshot"
    public_key = asyncio.run(write_snapshot(snapshot, map(_local, config_changes())))

    def launch(place: Place, port: int) -> Launch:
        nobody = free_ports(1)[0]
        env = node_env(place, port) | {
            "TIDEGATE_SNAPSHOT_FILE": str(snapshot),
            "TIDEGATE_CONTROL_PLANE_PUBLIC_KEY": public_key,
            "TIDEGATE_REDIS_URL": f"redis://127.0.0.1:{nobody}",
        }
        return Launch([*python_module("tidegate"), "data-plane"], port, env)

    return launch


def _local(change: Change) -> Change:
    """The document, its limits to be counted by the node while the store is away."""
    if change.kind != "plan":
        return change
    plan = msgspec.json.decode(change.body or b"", type=Plan)
    limits = tuple(msgspec.structs.replace(rule, on_store_failure="local") for rule in plan.limits)
    plan = msgspec.structs.replace(plan, limits=limits)
    return Change("plan", change.id, msgspec.Raw(msgspec.json.encode(plan, order="sorted")))


def _turn(asked: Asked, directory: Path, requests: int, core: int) -> Turn:
    target = asked.target
    p99_ms: dict[int, list[float]] = {rate: [] for rate in RATES}
    cpu_s = process_cpu_s(target.pid)
    drive(target, directory, array.array("q", bytes(8 * requests)), core)
    cpu_us = (process_cpu_s(target.pid) - cpu_s) / requests * 1e6
    time.sleep(SETTLED_S)
    for rate in (rate for rate in RATES for _ in range(LOOPS)):
        instants, stolen_before_s = array.array("q", _poisson(rate, LOOP_S)), stolen_s()
        with woken_at_once(target.pid, asked.store.child.pid, ours=True):
            latencies = sorted(drive(target, directory, instants, core)[::2])
        if stolen_s() == stolen_before_s:
            p99_ms[rate].append(latencies[int(0.99 * len(latencies))] / 1e6)
    time.sleep(SETTLED_S)
    return Turn(cpu_us, p99_ms)


def _poisson(rate: int, seconds: float) -> Iterator[int]:
    at = 0.0
    while at < seconds:
        yield int(at * 1e9)
        at += random.expovariate(rate)


def document(turns: Mapping[str, Sequence[Turn]], slow_us: Sequence[int]) -> str:
    """The page; ``slow_us`` are the calls of the shared node's store that took long, the longest last."""
    machine = describe()
    head = ("node", "CPU µs a decision (least to most)", *(f"p99 ms at {rate:,}/s (loops)" for rate in RATES))
    lines: list[Sequence[str]] = [head, ["---"] * len(head)]
    for title, own in turns.items():
        costs = [turn.cpu_us for turn in own]
        tails = (f"{_tail(own, rate):.2f} ({len(_p99s_ms(own, rate))})" for rate in RATES)
        lines.append((title, f"{median(costs):.1f} ({min(costs):.1f} to {max(costs):.1f})", *tails))
    return PAGE.format(
        day=datetime.now(UTC).date(), commit=source_revision(), turns=len(turns[PLAIN]), callers=CALLERS,
        in_flight=IN_FLIGHT, loop_s=LOOP_S, cpu=machine.cpu, cores=machine.cores, kernel=machine.kernel,
        python=machine.python, valkey=machine.versions.get("Valkey", "?"), niceness=machine.niceness,
        table="\n".join(f"| {' | '.join(cells)} |" for cells in lines),
        ratios="\n".join(_ratios(turns, *pair) for pair in ((SHARED, PLAIN), (ALONE, PLAIN), (PLAIN, FLOOR))),
        slow=len(slow_us), slow_us=SLOW_US, longest=max(slow_us, default=0),
    )  # fmt: skip


def _ratios(turns: Mapping[str, Sequence[Turn]], one: str, other: str) -> str:
    these, those = turns[one], turns[other]
    cpu = median(turn.cpu_us for turn in these) / median(turn.cpu_us for turn in those)
    tails = (f"{_tail(these, rate) / _tail(those, rate):.2f} at {rate:,}/s" for rate in RATES)
    return f"- {one} / {other}: CPU {cpu:.2f}; p99 {', '.join(tails)}"


def _tail(turns: Sequence[Turn], rate: int) -> float:
    found = _p99s_ms(turns, rate)
    return median(found) if found else math.nan


def _p99s_ms(turns: Sequence[Turn], rate: int) -> Sequence[float]:
    return [p99_ms for turn in turns for p99_ms in turn.p99_ms[rate]]


if __name__ == "__main__":
    main()
