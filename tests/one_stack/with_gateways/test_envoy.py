"""A real Envoy in each region, in front of a small upstream: one limit over both."""

import contextlib
import statistics
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import pytest

from testing.envoy import EnvoyServer
from testing.gateway import RATE_LIMIT_HEADERS
from testing.stack import Stack
from testing.upstream import Upstream

REGIONS = ("us-east", "eu-west")
LIMIT = 100
WAVE = 10


class DecisionHandler(NamedTuple):
    """A region's gateway and what stands behind it."""

    region: str
    http: httpx.Client
    upstream: Upstream


@pytest.fixture(scope="module")
def handlers(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[DecisionHandler]]:
    with contextlib.ExitStack() as running:
        made = []
        for region in REGIONS:
            upstream = running.enter_context(Upstream().running())
            directory = tmp_path_factory.mktemp(f"envoy-{region}")
            envoy = EnvoyServer(directory, node_port=stack.node(region).port, upstream_port=upstream.port)
            running.callback(envoy.child.stop)
            envoy.start()
            http = running.enter_context(httpx.Client(base_url=envoy.url, trust_env=False, timeout=10))
            made.append(DecisionHandler(region, http, upstream))
        yield made


def test_one_limit_holds_over_both_regions(stack: Stack, handlers: list[DecisionHandler]) -> None:
    key = stack.client_with_limit("envoy-acme", LIMIT)
    other = stack.client_with_limit("envoy-globex", LIMIT)
    reached_before = sum(handler.upstream.requests for handler in handlers)
    lags_s = []

    for wave in range(LIMIT // WAVE):
        here, there = handlers[wave % 2], handlers[(wave + 1) % 2]
        for nth in range(WAVE):
            answer = here.http.get("/api/users/1", headers={"X-API-Key": key})
            left = LIMIT - wave * WAVE - nth - 1
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-ratelimit-remaining"] == str(left)
            assert answer.json()["headers"]["x-ratelimit-remaining"] == str(left), "upstream is told as well"
        lags_s.append(stack.settle(stack.node(there.region), key, LIMIT - (wave + 1) * WAVE))

    for handler in handlers:
        denied = handler.http.get("/api/users/1", headers={"X-API-Key": key})
        _assert_denied(denied)
        spared = handler.http.get("/api/users/1", headers={"X-API-Key": other})
        assert spared.status_code == 200, spared.text
    assert sum(handler.upstream.requests for handler in handlers) - reached_before == LIMIT + len(handlers)

    print(f"counts crossed regions in {statistics.median(lags_s):.2f} s (median), {max(lags_s):.2f} s (most)")  # noqa: T201
    assert statistics.median(lags_s) < 1.0, f"a region's counts reach the other within a second: {lags_s}"


def _assert_denied(answer: httpx.Response) -> None:
    assert answer.status_code == 429, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-ratelimit-remaining"] == "0"
    assert answer.headers["x-ratelimit-limit"] == str(LIMIT)
    assert set(RATE_LIMIT_HEADERS) <= set(answer.headers)
    wait_s = int(answer.headers["retry-after"])
    assert 0 < wait_s <= 2 * 3600
    problem = answer.json()
    assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert problem["status"] == 429
    assert problem["error"] == "rate_limit_exceeded"
    assert problem["retry_after"] == wait_s
    assert problem["violated-policies"] == ["hourly"]
    assert {"client", "plan", "revision"}.isdisjoint(problem), "the body reaches end users"


def test_unknown_key_falls_back_to_the_limit_of_its_address(stack: Stack, handlers: list[DecisionHandler]) -> None:
    """Nor does a forged X-Forwarded-For give a fresh address."""
    stack.put("/v1/plans/anonymous", {"limits": [{"name": "per-ip", "scope": "ip", "limit": 5, "window_s": 3600}]})
    here = handlers[0].http
    answers = [here.get("/api/users/1", headers={"X-API-Key": f"tg_not-a-key-{nth}"}) for nth in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert answers[-1].json()["violated-policies"] == ["per-ip"]
    assert here.get("/api/users/1").status_code == 429, "no key at all is the same address"
    forged = here.get("/api/users/1", headers={"X-Forwarded-For": "203.0.113.9"})
    assert forged.status_code == 429, forged.text


def test_two_different_keys_are_refused(handlers: list[DecisionHandler]) -> None:
    answer = handlers[0].http.get("/api/users/1", headers={"X-API-Key": "tg_one", "Authorization": "Bearer tg_two"})
    assert answer.status_code == 401, answer.text


def test_client_cannot_turn_a_denial_around_by_its_query(stack: Stack, handlers: list[DecisionHandler]) -> None:
    key = stack.client_with_limit("envoy-nothing", 0)
    answer = handlers[0].http.get("/api/users/1?deny_status=200", headers={"X-API-Key": key})
    assert answer.status_code == 429, answer.text
