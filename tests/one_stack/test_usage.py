"""Usage, blocks, enforcement overrides and resets on two regions with two nodes each, over HTTP alone."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from testing.stack import ADMIN_TOKEN, Stack, wait_for

LIMIT = 5


def ask(stack: Stack, node: str, question: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{place_url(stack, node)}/v1/check", json=question, trust_env=False)


def place_url(stack: Stack, node: str) -> str:
    return next(place.url for place in stack.nodes if place.name == node)


def everywhere(stack: Stack, question: dict[str, Any]) -> set[int]:
    """What every node answers."""
    return {ask(stack, place.name, question).status_code for place in stack.nodes}


def assert_in_force(response: httpx.Response) -> None:
    """The answer says that every node had it. How soon is measured by ``python -m tools.bench.push``."""
    assert response.is_success, response.text
    assert response.headers["preference-applied"] == "wait"
    assert "x-tidegate-enforced-ms" in response.headers


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def usage(stack: Stack, client: str, **query: str) -> list[dict[str, Any]]:
    answer = stack.admin.get(f"/v1/clients/{client}/usage", params=query)
    assert answer.is_success, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def test_what_nodes_decide_is_in_postgres_moments_later(stack: Stack) -> None:
    key = stack.client_with_limit("metered", LIMIT, mode="regional")
    asked = {"us-east-1": 4, "us-east-2": 3, "eu-west-1": 1}
    answers = [ask(stack, node, {"api_key": key}).json() for node, count in asked.items() for _ in range(count)]
    allowed = sum(answer["allowed"] for answer in answers)
    denied = len(answers) - allowed
    assert allowed
    assert denied
    ask(stack, "us-east-1", {"api_key": key, "cost": 0})
    wait_for(
        lambda: sum(line["allowed"] + line["denied"] for line in usage(stack, "metered")) == len(answers), 10, "usage"
    )
    by_region = {
        line["region"]: line["allowed"] + line["denied"] for line in usage(stack, "metered", group_by="region")
    }
    assert by_region == {"us-east": 7, "eu-west": 1}
    (of_limit,) = usage(stack, "metered", group_by="plan,limit", plan="plan-metered")
    assert (of_limit["limit"], of_limit["allowed"], of_limit["denied"]) == ("hourly", allowed, denied)
    (of_key,) = usage(stack, "metered", group_by="key")
    assert of_key["key_id"].startswith("key_")
    until = stack.admin.get("/v1/usage").json()["complete_until"]
    assert set(until) == {"us-east", "eu-west"}
    wait_for(
        lambda: stack.admin.get("/v1/usage", params={"live": "true"}).json()["live"] == dict.fromkeys(until),
        60,
        "both regions to ship when they are asked",
    )


SUBJECTS: list[tuple[str, Callable[[str], dict[str, Any]], dict[str, Any]]] = [
    ("client", lambda key: {"api_key": key}, {"client": "unwanted"}),
    ("network", lambda _: {"ip": "198.51.100.77"}, {"ip": "198.51.100.0/24"}),
    ("v6", lambda _: {"ip": "2001:db8:7::1"}, {"ip": "2001:db8:7::/48"}),
]


def test_a_block_is_refused_everywhere_and_ends_by_itself(stack: Stack) -> None:
    key = stack.client_with_limit("unwanted", 1000)
    for name, question, subject in SUBJECTS:
        path, block = f"/v1/blocks/{name}", subject | {"reason_class": "abuse"}
        assert everywhere(stack, question(key)) == {200}
        assert_in_force(stack.admin.put(path, json=block, headers={"Prefer": "wait=5"}))
        assert everywhere(stack, question(key)) == {403}
        body = ask(stack, "eu-west-2", question(key)).json()
        assert (body["error"], body["reason_class"], body["allowed"]) == ("blocked", "abuse", False)
        if name == "client":
            url = f"{place_url(stack, 'us-east-1')}/v1/authorize/any"
            assert httpx.get(url, headers={"x-api-key": key}, trust_env=False).status_code == 403
        stack.put(path, block | {"expires_at": soon(1)})
        wait_for(lambda question=question: everywhere(stack, question(key)) == {200}, 6, f"the {name} block to end")


def test_a_lifted_block_is_lifted_everywhere(stack: Stack) -> None:
    key = stack.client_with_limit("forgiven", 1000)
    stack.put("/v1/blocks/for-a-while", {"client": "forgiven"})
    assert everywhere(stack, {"api_key": key}) == {403}
    assert_in_force(stack.admin.delete("/v1/blocks/for-a-while", headers={"Prefer": "wait=5"}))
    assert everywhere(stack, {"api_key": key}) == {200}


def test_a_switch_to_shadow_stops_denials_everywhere_and_ends_by_itself(stack: Stack) -> None:
    key = stack.client_with_limit("switched", 0)
    assert everywhere(stack, {"api_key": key}) == {429}
    path = "/v1/enforcement/plan-switched/hourly"
    assert_in_force(stack.admin.put(path, json={"mode": "shadow"}, headers={"Prefer": "wait=5"}))
    assert everywhere(stack, {"api_key": key}) == {200}
    assert ask(stack, "us-east-2", {"api_key": key}).json()["shadow_denied"] == ["hourly"]
    status = httpx.get(f"{place_url(stack, 'us-east-1')}/v1/status", trust_env=False).json()
    assert [switch["target"] for switch in status["enforcement"]] == ["plan-switched/hourly"]
    stack.put(path, {"mode": "shadow", "expires_at": soon(1)})
    wait_for(lambda: everywhere(stack, {"api_key": key}) == {429}, 6, "the switch to end")


def test_a_reset_takes_effect_everywhere(stack: Stack) -> None:
    key = stack.client_with_limit("restarted", LIMIT, mode="regional")
    while everywhere(stack, {"api_key": key}) != {429}:
        pass
    reset = stack.admin.post("/v1/clients/restarted/reset", json={}, headers={"Prefer": "wait=5"})
    assert_in_force(reset)
    assert everywhere(stack, {"api_key": key, "cost": 0}) == {200}


def test_a_clients_limits_are_asked_of_every_region(stack: Stack) -> None:
    key = stack.client_with_limit("explained", 100)
    stack.put("/v1/clients/explained/overrides/hourly", {"limit": 200})
    stack.put("/v1/limits/anybody", {"scope": "ip", "limit": 1_000_000, "window_s": 1})
    ask(stack, "us-east-2", {"api_key": key, "cost": 30})
    stack.settle(stack.node("eu-west"), key, 170)
    answer = stack.admin.get("/v1/clients/explained/limits").json()
    hourly = next(limit for limit in answer["limits"] if limit["name"] == "hourly")
    assert (hourly["source"], hourly["limit"], hourly["of_plan"]) == ("override", 200, 100)
    for region in ("us-east", "eu-west"):
        use = hourly["regions"][region]
        assert (use["used"], use["remaining"], use["reason"]) == (30, 170, None)
    anybody = next(limit for limit in answer["limits"] if limit["name"] == "anybody")
    assert anybody["regions"]["us-east"]["used"] is None
    assert "counts by ip" in anybody["regions"]["us-east"]["reason"]
    stack.admin.delete("/v1/limits/anybody")
    assert stack.admin.get("/v1/clients/nobody/limits").status_code == 404


def test_top_shows_regions_nodes_and_busy_clients(stack: Stack) -> None:
    key = stack.client_with_limit("watched", 1000)
    for _ in range(20):
        ask(stack, "us-east-1", {"api_key": key})
    command = [sys.executable, "-m", "tidegate", "top", "--once", "--url", str(stack.admin.base_url)]
    env = {"TIDEGATE_ADMIN_TOKEN": ADMIN_TOKEN, "PATH": os.environ["PATH"]}
    told = subprocess.run([*command, "--json"], env=env, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    view = json.loads(told.stdout)
    assert [region["region"] for region in view["regions"]] == ["eu-west", "us-east"]
    assert all(region["connected"] == 2 and region["lag_s"] < 10 for region in view["regions"])
    assert {node["node"] for node in view["nodes"]} == {place.name for place in (*stack.nodes, *stack.agents)}
    assert "watched" in {client["client"] for client in view["busiest"]}
    refused = env | {"TIDEGATE_ADMIN_TOKEN": "wrong"}
    wrong = subprocess.run(command, env=refused, capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert "401" in wrong.stderr
