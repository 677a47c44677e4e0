"""When a node wants requests: with a configuration, once its store was reached, and not while it drains."""

import httpx
import pytest

from data_plane.node import Node
from testing.node import key_of, node_client, rule, serving, settings_for
from tidegate.contract.config import Client, Plan
from tidegate.stack.ports import free_ports

CONFIG = [
    Plan(plan="p", limits=(rule(1, "hourly", 10, on_store_failure="open"),)),
    Client(client="acme", plan="p"),
    key_of("acme", "tg_acme"),
]


@pytest.fixture
def nowhere() -> str:
    return f"redis://:x@127.0.0.1:{free_ports(1)[0]}/0"


async def readiness(client: httpx.AsyncClient) -> tuple[int, dict[str, object]]:
    answer = await client.get("/readyz")
    return answer.status_code, answer.json()


async def test_a_node_whose_store_was_never_reached_is_not_ready_and_says_why(tmp_path, nowhere):
    async with node_client(tmp_path, nowhere, CONFIG) as client:
        status, body = await readiness(client)
        assert (status, body["ready"], body["missing"]) == (503, False, ["store"])
        assert (await client.get("/healthz")).status_code == 200
        # it would decide all the same, by each limit's policy, for whoever asks it
        decision = (await client.post("/v1/check", json={"api_key": "tg_acme"})).json()
        assert (decision["allowed"], decision["degraded"]) == (True, True)


async def test_a_node_that_may_is_ready_without_its_store(tmp_path, nowhere):
    async with node_client(tmp_path, nowhere, CONFIG, ready_without_store=True) as client:
        assert await readiness(client) == (200, {"ready": True, "revision": 1, "degraded": True, "agents": 0})


async def test_a_node_without_a_configuration_is_not_ready(tmp_path, valkey_url):
    node = Node(settings_for(tmp_path / "no-snapshot", valkey_url))
    async with serving(node) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        status, body = await readiness(client)
        assert (status, body["revision"], body["missing"]) == (503, 0, ["config"])


@pytest.mark.parametrize("lane", [True, False], ids=["lane", "asgi"])
async def test_a_draining_node_is_not_ready_but_decides(tmp_path, valkey_url, lane):
    node = Node(settings_for(tmp_path / "no-snapshot", valkey_url))
    async with serving(node, lane=lane) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        node.draining = True
        status, body = await readiness(client)
        assert (status, body["draining"]) == (503, True)
        answer = await client.post("/v1/check", json={"ip": "192.0.2.1"})
        assert answer.status_code == 200
        # the lane's own answers say so as well once the server drains: tests/unit/lane/test_drain.py
        assert lane or answer.headers["connection"] == "close"
