"""`python -m tools.bench.soak`: the Python client and a node for some minutes; does either keep more and more?

Between them is a relay that is sound, hangs, hangs up, answers nonsense and 500 by turns. Prints memory and open files
of both, once warm and at the end. Run by hand.
"""

import asyncio
import contextlib
import gc
import itertools
import os
import time
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.table import Table

from tidegate_client import AsyncTidegate, Check, Options
from tools.bench.place import prepared_place
from tools.bench.python_client import CHECK, PLENTY, limited
from tools.bench.relay import FAULTS, Relay

WARM_S = 20.0
TURN_S = 0.7
"""How long one fault lasts."""
SLOW_S = 2.0
"""Later than this no decision may come: the client is given 0.25 s, on a busy machine."""


class Held:
    """What a process holds: memory in MiB, open files."""

    def __init__(self, pid: int) -> None:
        process = psutil.Process(pid)
        self.memory_mib = process.memory_info().rss / 2**20
        self.files = process.num_fds()


def main(*, minutes: Annotated[float, typer.Option(min=0.5, max=60, help="How long, after warming up.")] = 3.0) -> None:
    """Soak the client and a node."""
    with prepared_place() as place, limited(place, PLENTY) as server:
        counts, before, after = asyncio.run(_soak(server.url, server.pid, minutes * 60))
    table = Table(
        "process", "MiB, warm", "MiB, at the end", "files, warm", "files, at the end", title=f"{minutes:g} min"
    )
    for name, warm, end in zip(("client", "node"), before, after, strict=True):
        table.add_row(
            name, f"{warm.memory_mib:.1f}", f"{end.memory_mib:.1f}", str(warm.files), str(end.files)
        )  # fmt: skip
    console = Console()
    console.print(table)
    console.print(", ".join(f"{name}: {count:,}" for name, count in counts.items()))


async def _soak(url: str, node: int, seconds: float) -> tuple[dict[str, int], list[Held], list[Held]]:
    counts = {"decided": 0, "by lease": 0, "by policy": 0, "reserved": 0, "gave up": 0, "late": 0}
    before: list[Held] = []
    async with contextlib.AsyncExitStack() as running:
        relay = await running.enter_async_context(Relay(int(url.rpartition(":")[2])).running())
        # A dead address beside the node: every other request finds it first.
        options = Options(urls=(relay.url, "http://127.0.0.1:9"), leases=True)
        limiter = await running.enter_async_context(AsyncTidegate(options))
        began = time.monotonic()
        for turn in itertools.count():
            passed = time.monotonic() - began
            relay.fault = FAULTS[int(passed / TURN_S) % len(FAULTS)]
            if relay.fault == "sound":
                if not before and passed > WARM_S:
                    before = _held(node)
                if passed > WARM_S + seconds:
                    break
            await _turn(limiter, turn, counts)
        gc.collect()
        after = _held(node)
    return counts, before, after


def _held(node: int) -> list[Held]:
    return [Held(os.getpid()), Held(node)]


async def _turn(limiter: AsyncTidegate, turn: int, counts: dict[str, int]) -> None:
    """Some of everything: one hot subject, many that come once, a reservation, a caller that gives up."""
    began = time.monotonic()
    strangers = [Check(ip=f"203.0.{turn % 200}.{nth}") for nth in range(20)]
    for decision in await asyncio.gather(*(limiter.decide(check) for check in [CHECK] * 20 + strangers)):
        counts["decided"] += 1
        counts["by lease"] += decision.source == "lease"
        counts["by policy"] += decision.source == "policy"
    counts["late"] += time.monotonic() - began > SLOW_S
    async with limiter.reserve(10, client="acme") as reservation:
        reservation.cost = turn % 20
        counts["reserved"] += reservation.allowed
    gives_up = asyncio.create_task(limiter.decide(Check(ip=f"198.51.100.{turn % 250}")))
    await asyncio.sleep(0)
    gives_up.cancel()
    counts["gave up"] += 1


if __name__ == "__main__":
    typer.run(main)
