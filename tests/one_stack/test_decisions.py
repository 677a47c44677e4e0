"""Decisions of the whole stack, as one client sees them through several nodes and regions."""

import asyncio
import statistics
from collections import Counter

import httpx
import pytest

from testing.stack import Stack, wait_for
from tidegate.stack.layout import NodePlace

LIMIT = 100
REQUESTS = 200


async def test_two_nodes_of_a_region_let_exactly_the_limit_pass(stack: Stack) -> None:
    key = stack.client_with_limit("concurrent", LIMIT)
    nodes = [stack.node("us-east", 1), stack.node("us-east", 2)]
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        answers = await asyncio.gather(
            *(http.post(f"{nodes[nth % 2].url}/v1/check", json={"api_key": key}) for nth in range(REQUESTS))
        )
    assert Counter(answer.status_code for answer in answers) == {200: LIMIT, 429: REQUESTS - LIMIT}
    assert sorted(a.json()["remaining"] for a in answers if a.status_code == 200) == list(range(LIMIT))
    assert not any(answer.json()["degraded"] for answer in answers)


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window", "token_bucket"])
def test_counts_of_a_region_reach_the_other_within_a_second(stack: Stack, algorithm: str) -> None:
    # A slow refill, so that what a bucket regains meanwhile is less than one unit.
    client = f"crossing-{algorithm.replace('_', '-')}"
    key = stack.client_with_limit(client, 1000, algorithm=algorithm, window_s=3600 * 1000)
    left, lags_s = 1000, []
    for wave in range(6):
        here, there = stack.node("us-east"), stack.node("eu-west")
        if wave % 2:
            here, there = there, here
        answer = _check(here, {"api_key": key, "cost": 150})
        left -= 150
        assert answer.status_code == 200, answer.text
        assert answer.json()["remaining"] == left
        lags_s.append(stack.settle(there, key, left))
    assert statistics.median(lags_s) < 1.0, lags_s
    for place in stack.nodes:
        assert _check(place, {"api_key": key, "cost": 101}).status_code == 429, place


def test_regional_limit_exchanges_nothing(stack: Stack) -> None:
    key = stack.client_with_limit("regional", 10, mode="regional", algorithm="fixed_window")
    allowed = {
        region: sum(_check(stack.node(region), {"api_key": key}).status_code == 200 for _ in range(10))
        for region in ("us-east", "eu-west")
    }
    assert allowed == {"us-east": 5, "eu-west": 5}


def test_shares_that_move_hold_from_the_window_after_the_cut(stack: Stack) -> None:
    key = stack.client_with_limit("moved", 10, mode="regional", algorithm="fixed_window", window_s=2)
    quota = "/v1/quotas/plan-moved/hourly"
    shares = {"us-east": 7, "eu-west": 3}
    stack.put(quota, {"shares": {"us-east": 0.7, "eu-west": 0.3}})
    wait_for(lambda: stack.admin.get(quota).json().get("in_force") == shares, 30, "the shares to have moved")
    for region, share in shares.items():
        node = stack.node(region)
        wait_for(lambda n=node, s=share: _in_a_fresh_window(n, key) == s, 30, f"{region} to allow {share} in a window")


def _in_a_fresh_window(node: NodePlace, key: str) -> int | None:
    """How many of ten requests at once were allowed; ``None`` where others had come into the window before."""
    batch = httpx.post(f"{node.url}/v1/check/batch", json={"checks": [{"api_key": key}] * 10}, trust_env=False)
    decisions = batch.raise_for_status().json()["decisions"]
    if decisions[0]["remaining"] != decisions[0]["limit"] - 1:
        return None
    return sum(one["allowed"] for one in decisions)


def test_another_client_is_untouched(stack: Stack) -> None:
    spent = stack.client_with_limit("spent", 1)
    spared = stack.client_with_limit("spared", 1)
    here = stack.node("us-east")
    assert [_check(here, {"api_key": spent}).status_code for _ in range(3)] == [200, 429, 429]
    assert _check(here, {"api_key": spared}).status_code == 200


def test_batch_keeps_order_and_a_bad_item_spoils_no_other(stack: Stack) -> None:
    key = stack.client_with_limit("batch", 2)
    checks = [{"api_key": key}, {"api_key": key, "cost": -1}, {"api_key": key}, {"api_key": key}]
    answer = httpx.post(f"{stack.node('us-east').url}/v1/check/batch", json={"checks": checks}, trust_env=False)
    assert answer.status_code == 200, answer.text
    decisions = answer.json()["decisions"]
    assert [decision.get("allowed") for decision in decisions] == [True, None, True, False]
    assert "cost" in str(decisions[1]["error"])


def _check(place: NodePlace, question: dict[str, object]) -> httpx.Response:
    return httpx.post(f"{place.url}/v1/check", json=question, trust_env=False)
