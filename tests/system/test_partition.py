"""Regions as processes, cut and killed under load; ``python -m tests.system.partition`` is the long run."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from testing.region_processes import RegionProcesses
from tests.system.partition import HELD, SIGMA_S, TOGETHER, check_cut, check_fault, cut, fault, key, world
from tests.system.region_holds import bound, use_up, used

SECONDS = 3.0
pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def regions(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RegionProcesses]:
    async with world(tmp_path_factory.mktemp("regions"), SECONDS) as regions:
        yield regions


async def test_leases_and_reservations_in_all_regions_take_no_limit_over_its_bound(regions: RegionProcesses) -> None:
    exact, shared = await use_up(regions, key("held-exact")), await use_up(regions, key("held-shared"))
    assert used(exact) <= HELD
    assert {one.region for one in exact if one.units} == set(regions.names)
    assert used(exact) > HELD / 2, "rights moved to who asked"
    assert HELD / 2 < used(shared) <= HELD + bound(shared, HELD, SIGMA_S)


async def test_a_cut_takes_no_limit_over_its_bound_and_counts_agree_after_it(regions: RegionProcesses) -> None:
    check_cut(await cut(regions, SECONDS))


async def test_a_killed_node_and_agent_a_lost_and_a_rolled_back_store_take_no_limit_over_its_bound(
    regions: RegionProcesses,
) -> None:
    places = {"us-east": "store-killed", "eu-west": "node-and-agent-killed", "ap-south": "store-rolled-back"}
    check_fault(await fault(regions, TOGETHER, places, SECONDS))
