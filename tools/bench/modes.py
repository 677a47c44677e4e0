"""`python -m tools.bench.modes`: a decision where its limit is shared with a region, and where the store is gone,
beside the plain one, in one run.

Run by hand. CPU of the node a decision: closed loop, 64 in flight. Latencies: open loop with Poisson arrivals over 64
connections, at each rate. Of the stores the longest call of the whole run. Every turn asks all servers, one after the
other, and ratios are of the same turn. The agents, the stores and the generator share one core, the node has the other.
By `nice -n -10` the node, its store and the generator go first, as where agents have a core of their own: otherwise
latencies show how long the generator waits for an agent's time slice.
"""

import argparse
import array
import asyncio
import contextlib
import dataclasses
import itertools
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec
import redis
from rich.console import Console
from rich.table import Table

from tidegate.contract.config import Change, Plan
from tidegate.stack.ports import free_ports
from tools.bench.machine import process_cpu_s, woken_at_once
from tools.bench.open_loop import compiled
from tools.bench.place import Place, prepared_place
from tools.bench.rls import CALLERS, HTTP_PACER, IN_FLIGHT, Target, drive, http_request, record
from tools.bench.snapshot import write_snapshot
from tools.bench.variant import Launch, Variant, python_module, running
from tools.bench.variants import nginx_constant, tidegate_lane, tidegate_shared
from tools.bench.variants.node_settings import node_env
from tools.bench.workload import callers, config_changes

RATES = (500, 2_000, 5_000)
SLOW_US = 100
PLAIN, SHARED, ALONE, FLOOR = "regional", "shared, one peer", "store gone, local", "nginx answering a constant"


class Turn(NamedTuple):
    """CPU microseconds a decision in the closed loop, and p99 (microseconds) of the open one by rate."""

    cpu_us: float
    p99_us: dict[int, float]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--requests", type=int, default=40_000, help="in the closed loop of a turn")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each open loop")
    arguments = parser.parse_args()
    turns: dict[str, list[Turn]] = {}
    slow: list[int] = []
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-modes-")))
        place = stack.enter_context(prepared_place())
        store = stack.enter_context(redis.Redis.from_url(place.store.url))
        asked = directory / "asked"
        asked.write_bytes(
            b"".join(record(http_request(caller)) for caller in itertools.islice(callers("one"), CALLERS))
        )
        pacer = compiled(HTTP_PACER, directory)
        for _, (title, variant) in itertools.product(range(arguments.turns), _variants(directory).items()):
            with running(variant, place) as server:
                store.config_set("slowlog-log-slower-than", SLOW_US)
                store.config_set("slowlog-max-len", 10_000)
                store.slowlog_reset()
                target = Target(title, server.pid, (pacer, str(server.port), str(IN_FLIGHT), asked))
                turns.setdefault(title, []).append(_turn(target, directory, arguments, place))
                if title == SHARED:
                    slow += [one["duration"] for one in store.slowlog_get(10_000) if b"EVAL" in one["command"]]
    _print(turns, sorted(slow))


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


def _turn(target: Target, directory: Path, arguments: argparse.Namespace, place: Place) -> Turn:
    core = place.cores.load
    for requests in (CALLERS, arguments.requests):  # who asks for the first time costs more
        cpu_s = process_cpu_s(target.pid)
        drive(target, directory, array.array("q", bytes(8 * requests)), core)
        cpu_us = (process_cpu_s(target.pid) - cpu_s) / requests * 1e6
    p99_us = {}
    for rate in RATES:
        instants = array.array("q", _poisson(rate, arguments.seconds))
        with woken_at_once(target.pid, place.store.child.pid, ours=True):
            latencies = sorted(drive(target, directory, instants, core)[::2])
        p99_us[rate] = latencies[int(0.99 * len(latencies))] / 1_000
    return Turn(cpu_us, p99_us)


def _poisson(rate: int, seconds: float) -> Iterator[int]:
    at, chance = 0.0, random.Random(1)
    while at < seconds:
        yield int(at * 1e9)
        at += chance.expovariate(rate)


def _print(turns: dict[str, list[Turn]], slow: Sequence[int]) -> None:
    console = Console(width=140)
    table = Table("node", "CPU µs a decision (least to most)", *(f"p99 ms at {rate:,}/s" for rate in RATES))
    for title, own in turns.items():
        costs = [turn.cpu_us for turn in own]
        tails = [f"{median(turn.p99_us[rate] for turn in own) / 1_000:.2f}" for rate in RATES]
        table.add_row(title, f"{median(costs):.1f}  ({min(costs):.1f} to {max(costs):.1f})", *tails)
    console.print(table)
    for one, other in ((SHARED, PLAIN), (ALONE, PLAIN), (PLAIN, FLOOR)):
        console.print(
            f"{one} / {other}: CPU {_ratio([t.cpu_us for t in turns[one]], [t.cpu_us for t in turns[other]])}"
        )
        for rate in RATES:
            tails_of = [[turn.p99_us[rate] for turn in turns[title]] for title in (one, other)]
            console.print(f"    p99 at {rate:,}/s {_ratio(*tails_of)}")
    console.print(
        f"store of the node with a peer: {len(slow)} script calls over {SLOW_US} µs, the longest {slow[-1:]} µs"
    )


def _ratio(those: Sequence[float], these: Sequence[float]) -> str:
    found = [one / other for one, other in zip(those, these, strict=True)]
    return f"{median(found):.2f}  ({min(found):.2f} to {max(found):.2f})"


if __name__ == "__main__":
    main()
