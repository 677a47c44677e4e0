"""Three regions with two nodes each, on stores of their own, behind links that delay and cut."""

import asyncio
import time

import pytest

from testing.node import rule
from testing.regions import NAMES, YOUNG, Regions, equal_shares, regions_running
from tidegate.contract.counts import SLICES

THREE = NAMES[:3]
LIMIT = 900
DELAY_S = 0.05
LIMITS = [
    rule(
        1, "exact", LIMIT, mode="strict", algorithm="fixed_window", shares=equal_shares(LIMIT, THREE),
        on_store_failure="closed", **YOUNG,
    ),
    rule(2, "shared", 2 * LIMIT, mode="shared", algorithm="fixed_window"),
]  # fmt: skip


@pytest.fixture
async def regions(tmp_path, start_store):
    async with regions_running(tmp_path, start_store, LIMITS, THREE, nodes=2, agents=2) as regions:
        regions.delay(DELAY_S)
        await everybody_heard(regions)
        yield regions


async def everybody_heard(regions: Regions) -> float:
    """Wait until no region takes another for silent; the seconds that it took."""

    async def heard() -> bool:
        states = [
            peer["silent"]
            for name in regions.names
            for node in range(2)
            for peer in (await regions.status(name, node=node))["peers"].values()
        ]
        return len(states) >= 6 and not any(states)

    return await regions.until(heard)


async def load(regions: Regions, seconds: float, weights: dict[str, int], at_once: int = 4) -> dict[str, int]:
    """Ask on every node of every region for a while; what each region admitted."""
    admitted = dict.fromkeys(regions.names, 0)
    ends = time.monotonic() + seconds

    async def ask(region: str, node: int) -> None:
        while time.monotonic() < ends:
            admitted[region] += await regions.allowed(region, node=node)
            await asyncio.sleep(0.002)

    askers = [ask(name, number % 2) for name in regions.names for number in range(at_once * weights[name])]
    await asyncio.gather(*askers)
    return admitted


async def test_nothing_goes_over_a_strict_limit_under_a_cut_and_counts_agree_after_it(regions):
    before = await load(regions, 0.2, dict.fromkeys(THREE, 1), at_once=2)
    await regions.cut()
    during = await load(regions, 2.5, dict(zip(THREE, (2, 1, 1), strict=True)))
    assert sum(before.values()) + sum(during.values()) <= LIMIT
    assert all(during.values()), "every region went on with what it owns"
    await regions.heal()
    after = await load(regions, 1.0, dict.fromkeys(THREE, 1))
    total = sum(sum(part.values()) for part in (before, during, after))
    assert total <= LIMIT

    async def agree() -> bool:
        return len({(await regions.remaining(name))["shared"] for name in THREE}) == 1

    await everybody_heard(regions)
    await regions.until(agree)
    # what was taken and came back too late to be answered counts as well
    assert (await regions.remaining(THREE[0]))["shared"] <= 2 * LIMIT - total


async def test_agents_divide_the_telling_and_a_region_that_lost_its_store_is_told_what_it_had_counted(regions):
    async def divided() -> bool:
        slices = [(await regions.agent_status("us-east", agent=agent))["slices"] for agent in range(2)]
        return slices == [SLICES // 2, SLICES // 2]

    async def agree() -> bool:
        return all([(await regions.remaining(name))["shared"] == 2 * LIMIT - 40 for name in THREE])

    await regions.until(divided)
    assert await regions.drain("eu-west", 40) == 40
    await regions.until(agree)
    await regions.restart_store("eu-west")
    await regions.until(agree)
    assert (await regions.agent_status("eu-west"))["rights"]["new_lives"] == 1
