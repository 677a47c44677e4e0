"""What callers do: odd costs, loops that come and go, closing while others ask."""

import asyncio
import subprocess
import sys

import pytest

from tests.clients.conftest import config
from tests.clients.faulty_node import faulty_node
from tests.clients.test_frameworks import options
from tidegate_client import AsyncTidegate, Check, InvalidCheckError, Options, Tidegate

CHECK = Check(api_key="tg_acme", endpoint="get-user")


async def test_a_lease_does_not_grow_by_a_cost_below_zero(start_node):
    node = start_node(config(10_000))
    async with AsyncTidegate(options(node.url, leases=True)) as limiter:
        while (await limiter.decide(CHECK)).source != "lease":
            pass
        lease = limiter.book.accounts[CHECK].lease
        for _ in range(3):
            with pytest.raises(InvalidCheckError):
                await limiter.decide(CHECK, -1_000_000)
        assert lease.left < lease.granted


def test_nor_does_one_that_threads_share(start_node):
    node = start_node(config(10_000))
    with Tidegate(options(node.url, leases=True)) as limiter:
        while limiter.decide(CHECK).source != "lease":
            pass
        lease = limiter.book.accounts[CHECK].lease
        with pytest.raises(InvalidCheckError):
            limiter.decide(CHECK, -1_000_000)
        assert lease.left < lease.granted


async def test_who_asks_while_another_thread_closes_gets_the_policy():
    async with faulty_node("hangs") as node:
        limiter = Tidegate(Options(urls=(node.url,), timeout_s=5.0, on_failure="closed"))

        def reserve() -> str:
            with limiter.reserve(5, api_key="k") as held:
                return held.decision.source

        asked = [
            asyncio.create_task(asyncio.to_thread(call)) for call in (reserve, lambda: limiter.decide(CHECK).source)
        ]
        while node.requests < len(asked):
            await asyncio.sleep(0.005)
        await asyncio.to_thread(limiter.close)
        assert await asyncio.gather(*asked) == ["policy", "policy"]


@pytest.mark.parametrize("leases", [False, True])
def test_it_goes_on_where_another_event_loop_runs(start_node, leases):
    node = start_node(config(1_000_000))
    # In a process of its own: the sockets of loops that have gone stay open until they are collected.
    command = [sys.executable, "-m", "tests.clients.wanderer", node.url, *(["leases"] if leases else [])]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "failures=0\n"), ended.stderr
