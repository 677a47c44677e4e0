"""Regions cut from each other, and parts of them killed, under load: ``python -m tests.system.partition --seconds 10``.

Three regions of two nodes and a Valkey each, all of them processes; between regions are proxies that delay and cut.
What callers saw is held against what docs/regions.md promises.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from data_plane.replicate.count_store import TIMING
from testing.node import HOUR_US, key_of, rule
from testing.region_faults import FAULTS
from testing.region_load import Load
from testing.region_processes import RegionProcesses, processes_running
from testing.regions import NAMES, YOUNG, equal_shares
from tidegate.contract.config import Client, Plan
from tidegate.contract.limits import LimitRule

THREE = NAMES[:3]
DELAY_S = 0.05
TICK_S = TIMING.tick_us / 1e6
SIGMA_S = (TIMING.stale_after_us + TIMING.lazy_us) / 1e6 + DELAY_S
RATES = {"us-east": 30.0, "eu-west": 15.0, "ap-south": 15.0}
"""Questions a second at each of a region's two nodes."""
RATE = 2 * sum(RATES.values())
AMPLE = 1_000_000
WINDOW_S = 3
PACED = 180
"""Under demand for twice as much, in windows of ``WINDOW_S``."""
HELD = 600
"""Units to be leased and reserved."""
SETTLE_S = 30.0
TOGETHER = "together"
"""The name of several faults at once."""


class Cut(NamedTuple):
    """One limit's outcome. ``bound`` is for what is over the limit."""

    name: str
    limit: int
    asked: int
    before: int
    during: int
    after: int
    bound: int

    @property
    def over(self) -> int:
        return max(0, self.before + self.during + self.after - self.limit)


class CutSeen(NamedTuple):
    """``agreed_s`` is from the heal until all nodes told the same count, ``sigma_s`` the bounds' age of information."""

    limits: tuple[Cut, ...]
    agreed_s: float
    sigma_s: float


class Agreement(NamedTuple):
    """What all nodes said was counted under the ample limit, and how long it took them to agree."""

    count: int
    seconds: float


class FaultSeen(NamedTuple):
    """What came of a fault. At most ``fullest`` of ``PACED`` were admitted in a ``strict`` window; ``again_s`` is until
    the regions admitted there again. The ``shared`` limit was ``over`` by at most ``bound``. Of what lost stores had
    counted, ``forgotten`` is not known any more, at most ``untold``.
    """

    name: str
    windows: int
    fullest: int
    again_s: float
    over: int
    bound: int
    agreed_s: float
    forgotten: int
    untold: int
    unanswered: int


def limit_of(seconds: float) -> int:
    """A limit that is used up while the cut lasts, and not before."""
    return round(RATE * (1 + 0.4 * seconds))


def config(seconds: float, algorithm: str) -> list[object]:
    """A client with a plan of its own for each limit."""
    closed = {"algorithm": algorithm, "on_store_failure": "closed"}
    # no hour ends, and its counts with it, while these are counted
    lasting = {**closed, "window_us": 1_000 * HOUR_US}
    limit = limit_of(seconds)
    limits = [
        rule(1, "exact", limit, mode="strict", shares=equal_shares(limit, THREE), **lasting, **YOUNG),
        rule(2, "scarce", limit, mode="shared", **lasting),
        rule(3, "ample", AMPLE, mode="shared", **lasting),
        rule(
            4, "paced", PACED, mode="strict", shares=equal_shares(PACED, THREE), window_us=WINDOW_S * 1_000_000,
            since_us=1, **closed,
        ),
        *(
            rule(5 + place, name, fault_limit(seconds), mode="shared", **lasting)
            for place, name in enumerate((*FAULTS, TOGETHER))
        ),
        rule(20, "held-exact", HELD, mode="strict", shares=equal_shares(HELD, THREE), **lasting, **YOUNG),
        rule(21, "held-shared", HELD, mode="shared", **lasting),
    ]  # fmt: skip
    return [value for limit in limits for value in _client(limit)]


def fault_limit(seconds: float) -> int:
    """A limit that is used up towards the end of a fault's load."""
    return round(RATE * 0.7 * seconds)


def key(name: str) -> str:
    """The key of a limit's client."""
    return f"tg_{name}"


@contextlib.asynccontextmanager
async def world(root: Path, seconds: float, algorithm: str = "fixed_window") -> AsyncIterator[RegionProcesses]:
    """Three regions that know each other, with the limits for scenarios of so many seconds."""
    async with processes_running(root, THREE, config(seconds, algorithm)) as regions:
        regions.delay(DELAY_S)
        await regions.heard()
        yield regions


async def cut(regions: RegionProcesses, seconds: float) -> CutSeen:
    """Load, cut all from all for a while under load, heal, wait until counts agree, and load again."""
    names = ("exact", "scarce", "ample")
    limit, load = limit_of(seconds), Load(regions, [key(name) for name in names], RATES)
    admitted = []

    async def under_way() -> bool:
        return load.admitted(key("exact")) >= limit / 5

    async with load:
        await regions.until(under_way)
        admitted.append({name: load.admitted(key(name)) for name in names})
        await regions.cut()
        await asyncio.sleep(seconds)
    admitted.append({name: load.admitted(key(name)) for name in names})
    await regions.heal()
    agreed_s = (await agreed(regions)).seconds
    async with load:
        await asyncio.sleep(1.0)
    admitted.append({name: load.admitted(key(name)) for name in names})
    sigma_s = sigma_of(load)
    limits = []
    for name in ("exact", "scarce"):
        before, cut_off, in_all = (part[name] for part in admitted)
        bound = 0 if name == "exact" else load.bound(key(name), limit, sigma_s)
        asked = len(load.answers(key(name)))
        limits.append(Cut(name, limit, asked, before, cut_off - before, in_all - cut_off, bound))
    return CutSeen(tuple(limits), agreed_s, sigma_s)


async def fault(regions: RegionProcesses, name: str, places: Mapping[str, str], seconds: float) -> FaultSeen:
    """Load, and in the middle of it a fault in each region of ``places``; then wait until it is over."""
    load = Load(regions, [key("paced"), key(name), key("ample")], RATES)
    was = await agreed(regions)
    async with load:
        await asyncio.sleep(seconds / 2)
        before = {region: load.admitted(key("ample"), region) for region in places}
        await asyncio.gather(*(FAULTS[what](regions, region) for region, what in places.items()))
        await asyncio.sleep(seconds / 2)

        async def outgrown() -> bool:
            """A copy of a store tells others nothing new before it has counted again what it forgot."""
            return all(load.admitted(key("ample"), region) >= 2 * before[region] for region in places)

        await regions.until(outgrown, SETTLE_S)
    again_s = max(await asyncio.gather(*(admits_again(regions, region) for region in places)))
    now, sigma_s = await agreed(regions), sigma_of(load)
    untold = sum(load.most_arrived(region, key("ample"), sigma_s) for region, what in places.items() if "store" in what)
    windows = load.windows(key("paced"), WINDOW_S)
    return FaultSeen(
        name, len(windows), max(windows.values()), again_s,
        over=max(0, load.admitted(key(name)) - fault_limit(seconds)),
        bound=load.bound(key(name), fault_limit(seconds), sigma_s) + untold,
        agreed_s=now.seconds,
        forgotten=max(0, was.count + load.admitted(key("ample")) - now.count),
        untold=untold,
        unanswered=len(load.unanswered),
    )  # fmt: skip


def sigma_of(load: Load) -> float:
    """The age of information that bounds follow from: what the design says, or longer where nodes say so."""
    return max(SIGMA_S, load.sigma_s + TICK_S)


async def counted(regions: RegionProcesses, region: str, node: int) -> int:
    """What a node says was counted under the ample limit."""
    return AMPLE - (await regions.check(region, 0, node=node, key=key("ample")))["remaining"]


async def agreed(regions: RegionProcesses) -> Agreement:
    """Wait until all nodes say the same count, and no node reserves the share of a region that it does not hear."""
    places = [(name, node) for name in regions.names for node in range(2)]
    counts: list[int] = []

    async def agree() -> bool:
        counts[:] = await asyncio.gather(*(counted(regions, name, node) for name, node in places))
        return len(set(counts)) == 1 and counts[0] < AMPLE // len(THREE)

    try:
        seconds = await regions.until(agree, SETTLE_S)
    except TimeoutError:
        raise AssertionError(f"no agreement after {SETTLE_S} s: {dict(zip(places, counts, strict=True))}") from None
    return Agreement(counts[0], seconds)


async def admits_again(regions: RegionProcesses, region: str) -> float:
    """Wait until a region admits under the ``strict`` limit again; the seconds that it took."""

    async def admits() -> bool:
        return bool((await regions.check(region, key=key("paced")))["allowed"])

    return await regions.until(admits, SETTLE_S)


def check_cut(seen: CutSeen) -> None:
    """What must hold of a cut."""
    for one in seen.limits:
        assert one.over <= one.bound, one
        assert one.during, one


def check_fault(seen: FaultSeen) -> None:
    """What must hold of a fault."""
    assert seen.fullest <= PACED, seen
    assert seen.over <= seen.bound, seen
    assert seen.forgotten <= seen.untold, seen


async def run(seconds: float, algorithm: str, write: Callable[[str], object]) -> None:
    """Every scenario, with its tables."""
    with tempfile.TemporaryDirectory() as root:
        async with world(Path(root), seconds, algorithm) as regions:
            seen = await cut(regions, seconds)
            rows = [
                (one.name, one.limit, one.asked, one.before, one.during, one.after, one.over, one.bound)
                for one in seen.limits
            ]
            head = ("limit", "L", "asked", "admitted before", "in the cut", "after", "over L", "may be over")
            write(table(head, rows))
            write(
                f"{algorithm}, {seconds:g} s of a cut, {RATE:g} requests/s in all; sigma {seen.sigma_s:.2f} s; counts "
                f"agreed {seen.agreed_s:.2f} s after the heal (2 x (tick + delay) = {2 * (TICK_S + DELAY_S):.2f} s)\n\n"
            )
            check_cut(seen)
            faults = [await fault(regions, name, {"eu-west": name}, seconds) for name in FAULTS]
    head = (
        "in one region", "strict windows", f"fullest, of {PACED}", "admitted there again after, s", "shared: over L",
        "may be over", "counts agreed after, s", "forgotten", "may be forgotten", "unanswered",
    )  # fmt: skip
    write(table(head, [(*one[:3], f"{one.again_s:.2f}", *one[4:6], f"{one.agreed_s:.2f}", *one[7:]) for one in faults]))
    for one in faults:
        check_fault(one)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines) + "\n"


def _client(limit: LimitRule) -> list[object]:
    name = limit.name
    return [Plan(plan=name, limits=(limit,)), Client(client=name, plan=name), key_of(name, key(name))]


def main() -> None:
    """Run every scenario and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="how long the cut, and the load of each fault, last"
    )
    parser.add_argument(
        "--algorithm", default="fixed_window", choices=("fixed_window", "sliding_window", "sliding_log")
    )
    arguments = parser.parse_args()
    asyncio.run(run(arguments.seconds, arguments.algorithm, sys.stdout.write))


if __name__ == "__main__":
    main()
