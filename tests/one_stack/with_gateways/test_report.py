"""Envoy's example with its option `report`: what it sees of a backend protects that backend."""

import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from testing.envoy import EnvoyServer
from testing.stack import Stack
from testing.upstream import Upstream

LIMIT = 1_000_000
ENOUGH_S = 60.0
POLICY = {"signals": {"latency_ms": 3_600_000, "error_rate": 0.5}, "min_reporters": 1, "cut_after": 1}
ODD = '/reported/"%5C%22\\{}'
"""A path that must be quoted on its way through JSON."""


class Gateway(NamedTuple):
    stack: Stack
    http: httpx.Client
    upstream: Upstream

    def ask(self, key: str, status: int = 200, path: str = "/reported/1?a=b") -> int:
        """What comes of a request that the upstream answers with ``status``."""
        return self.http.get(path, headers={"X-API-Key": key, "X-Answer": str(status)}).status_code

    def load(self) -> dict[str, Any]:
        """What the nodes make of the backend."""
        loads = httpx.get(f"{self.stack.node('us-east').url}/v1/status", trust_env=False).json()["adaptive"]["backends"]
        return next((load for load in loads if load["backend"] == "reported"), {})

    def taken(self) -> float:
        """Reports that the node took."""
        text = httpx.get(f"{self.stack.node('us-east').url}/metrics", trust_env=False).text
        return float(re.findall(r"^tidegate_load_reports_taken_total (\S+)", text, re.MULTILINE)[0])


@pytest.fixture(scope="module")
def gateway(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    stack.put("/v1/adaptive-policies/reported", POLICY)
    stack.put("/v1/backends/reported", {"adaptive": "reported"})
    stack.put("/v1/endpoints/reported", {"method": "GET", "path": "/reported/{id}", "backend": "reported"})
    with Upstream().running() as upstream:
        port = stack.node("us-east").port
        directory = tmp_path_factory.mktemp("envoy-report")
        envoy = EnvoyServer(directory, node_port=port, upstream_port=upstream.port, options=["report"])
        envoy.start()
        try:
            with httpx.Client(base_url=envoy.url, trust_env=False, timeout=10) as http:
                yield Gateway(stack, http, upstream)
        finally:
            envoy.child.stop()


def test_what_is_denied_is_not_reported_and_what_is_forwarded_is(gateway: Gateway) -> None:
    key = gateway.stack.client_with_limit("reported-few", 3)
    taken, reached = gateway.taken(), gateway.upstream.requests
    statuses = [gateway.ask(key) for _ in range(20)]
    assert statuses == [200] * 3 + [429] * 17
    deadline = time.monotonic() + ENOUGH_S
    while gateway.taken() == taken:
        assert time.monotonic() < deadline, "nothing was reported"
        time.sleep(0.05)
    assert gateway.taken() - taken <= gateway.upstream.requests - reached == 3


def test_errors_that_the_gateway_sees_cut_the_backend(gateway: Gateway) -> None:
    key = gateway.stack.client_with_limit("reported-many", LIMIT)
    deadline = time.monotonic() + ENOUGH_S
    while gateway.load().get("load") is None:
        assert gateway.ask(key, path=ODD) == 200
        assert time.monotonic() < deadline, gateway.load()
    healthy = gateway.load()
    assert (healthy["factor"], healthy["reason"], healthy["reporters"]) == (1.0, "full", 1)
    while gateway.load()["factor"] == 1.0:
        assert gateway.ask(key, 500) in {500, 429}
        assert time.monotonic() < deadline, gateway.load()
    assert gateway.load()["signal"] == "error_rate"
