"""The examples of the Python client's page run as they stand."""

import re
from pathlib import Path

import httpx

from testing.node import rule
from tidegate.contract.config import Client, Endpoint, Plan
from tidegate.stack.demo import CLIENTS, ENDPOINTS, PLANS

README = Path(__file__).parents[2] / "clients" / "python" / "README.md"


def test_the_reservation_runs_on_the_demo_as_written(start_node) -> None:
    (limit,) = PLANS[CLIENTS["acme"]]["limits"]
    name, most, window_s = limit["name"], limit["limit"], limit["window_s"]
    route = {member: ENDPOINTS["get-user"][member] for member in ("method", "path")}
    hourly = rule(1, name, most, algorithm=limit["algorithm"], window_us=window_s * 1_000_000)
    values = [Plan(plan="free", limits=(hourly,)), Client(client="acme", plan="free")]
    node = start_node([*values, Endpoint(endpoint="get-user", **route)])
    (example,) = re.findall(r"```python\n(import asyncio\n.*?reserve.*?)```", README.read_text(), flags=re.DOTALL)
    exec(compile(example.replace("http://127.0.0.1:8101", node.url), str(README), "exec"), {})  # our page
    with httpx.Client(base_url=node.url, trust_env=False) as client:
        looked = client.post("/v1/check", json={"client": "acme", "endpoint": "get-user", "cost": 0}).json()
    assert looked["remaining"] == most - 12
