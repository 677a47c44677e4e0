"""Strict limits of the whole stack: made by the admin API, enforced by processes, moved between regions."""

import httpx
import pytest

from testing.stack import Stack, wait_for

LIMIT = 20


def test_a_region_uses_the_whole_of_a_strict_limit_and_nobody_more(stack: Stack) -> None:
    key = stack.client_with_limit("exact", LIMIT, mode="strict", algorithm="fixed_window")
    admitted = 0

    def use(region: str) -> bool:
        nonlocal admitted
        answer = httpx.post(f"{stack.node(region).url}/v1/check", json={"api_key": key}, trust_env=False)
        admitted += answer.status_code == 200
        return admitted == LIMIT

    # more than its own half: the rest is asked for while it lasts
    wait_for(lambda: use("us-east"), 10, f"{LIMIT} admissions in one region")
    assert [use(region) for region in ("us-east", "eu-west") for _ in range(5)] == [True] * 10
    assert admitted == LIMIT
    answer = httpx.get(f"{stack.node('us-east').url}/v1/status", trust_env=False).json()
    assert answer["rights"]["incarnation"]


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window", "sliding_log", "token_bucket"])
def test_what_a_region_used_is_told_although_rights_moved(stack: Stack, algorithm: str) -> None:
    # What is lent early in a sliding window weighs little until more of it is over: of so much it lets some pass.
    whole = 10_000 if algorithm == "sliding_window" else LIMIT
    client = f"told-{algorithm.replace('_', '-')}"
    key = stack.client_with_limit(client, whole, mode="strict", algorithm=algorithm)
    admitted = 0

    def use(cost: int = 1) -> bool:
        nonlocal admitted
        check = {"api_key": key, "cost": cost}
        answer = httpx.post(f"{stack.node('us-east').url}/v1/check", json=check, trust_env=False)
        admitted += cost * (answer.status_code == 200)
        return admitted > whole // 2 + 2

    use(cost=whole // 2 - 10)
    wait_for(use, 20, "more than its half to pass in one region")
    (limit,) = stack.admin.get(f"/v1/clients/{client}/limits").json()["limits"]
    used = {region: one["used"] for region, one in limit["regions"].items()}
    assert used == {"us-east": admitted, "eu-west": 0}


def test_shares_move_once_the_region_that_loses_has_cut(stack: Stack) -> None:
    stack.client_with_limit("moving", 1000, mode="strict", algorithm="fixed_window", window_s=1)
    quota = "/v1/quotas/plan-moving/hourly"
    stack.put(quota, {"shares": {"us-east": 0.9, "eu-west": 0.1}})

    def settled() -> bool:
        return stack.admin.get(quota).json().get("in_force") == {"us-east": 900, "eu-west": 100}

    wait_for(settled, 20, "the shares to have moved")
