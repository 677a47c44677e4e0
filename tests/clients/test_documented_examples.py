"""The examples of the Python client's page run as they stand."""

import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from testing.node import rule
from testing.npm import program
from tests.clients.conftest import config
from tests.clients.test_express import packages  # noqa: F401  a fixture
from tidegate.contract.config import Client, Endpoint, Plan
from tidegate.stack.child import Child, wait_until_ready
from tidegate.stack.demo import CLIENTS, ENDPOINTS, PLANS
from tidegate.stack.ports import free_ports

PACKAGES = Path(__file__).parents[2] / "clients"
README = PACKAGES / "python" / "README.md"


def example(page: Path, language: str) -> str:
    """The first example of a page."""
    found = re.search(rf"^( *)```{language}\n(.*?)^ *```$", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert found is not None
    return textwrap.dedent(found[2])


def served(command: Sequence[str], directory: Path, port: int) -> Child:
    """The example's application, once it answers."""
    child = Child("app", list(command), log_path=directory / "app.log", directory=directory)

    def answers() -> bool:
        with httpx.Client(trust_env=False) as client:
            try:
                return client.get(f"http://127.0.0.1:{port}/nowhere").status_code == 404
            except httpx.TransportError:
                return False

    child.start()
    try:
        wait_until_ready(child, answers, timeout_s=30)
    except BaseException:
        child.stop(timeout_s=10)
        raise
    return child


def asked_four_times(port: int) -> list[httpx.Response]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        return [client.get("/api/users/1", headers={"X-API-Key": "tg_acme"}) for _ in range(4)]


def assert_limited(answers: Sequence[httpx.Response]) -> None:
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429], [answer.headers for answer in answers]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert int(answers[-1].headers["retry-after"]) > 0


def test_the_application_of_fastapi_is_limited_as_written(start_node, tmp_path: Path) -> None:
    node, (port,) = start_node(config(3)), free_ports(1)
    (tmp_path / "app.py").write_text(example(README, "python").replace("http://127.0.0.1:8101", node.url))
    command = [sys.executable, "-m", "uvicorn", "app:app", "--port", str(port), "--app-dir", str(tmp_path)]
    child = served(command, tmp_path, port)
    try:
        assert_limited(asked_four_times(port))
    finally:
        child.stop(timeout_s=10)


@pytest.mark.usefixtures("packages")
def test_the_application_of_express_is_limited_as_written(start_node, tmp_path: Path) -> None:
    node_js, modules = program("node"), PACKAGES / "express" / "node_modules"
    node, (port,) = start_node(config(3)), free_ports(1)
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "express").symlink_to(modules / "express")
    (tmp_path / "node_modules" / "tidegate-express").symlink_to(PACKAGES / "express")
    text = example(PACKAGES / "express" / "README.md", "js")
    (tmp_path / "app.js").write_text(text.replace("http://127.0.0.1:8101", node.url).replace("9000", str(port)))
    child = served([node_js, str(tmp_path / "app.js")], tmp_path, port)
    try:
        answers = asked_four_times(port)
        assert_limited(answers)
        assert answers[0].json() == {"id": "1", "left": 2}
    finally:
        child.stop(timeout_s=10)


def test_the_reservation_runs_on_the_demo_as_written(start_node) -> None:
    (limit,) = PLANS[CLIENTS["acme"]]["limits"]
    name, most, window_s = limit["name"], limit["limit"], limit["window_s"]
    route = {member: ENDPOINTS["get-user"][member] for member in ("method", "path")}
    hourly = rule(1, name, most, algorithm=limit["algorithm"], window_us=window_s * 1_000_000)
    values = [Plan(plan="free", limits=(hourly,)), Client(client="acme", plan="free")]
    node = start_node([*values, Endpoint(endpoint="get-user", **route)])
    (code,) = re.findall(r"```python\n(import asyncio\n.*?reserve.*?)```", README.read_text(), flags=re.DOTALL)
    exec(compile(code.replace("http://127.0.0.1:8101", node.url), str(README), "exec"), {})  # our page
    with httpx.Client(base_url=node.url, trust_env=False) as client:
        looked = client.post("/v1/check", json={"client": "acme", "endpoint": "get-user", "cost": 0}).json()
    assert looked["remaining"] == most - 12
