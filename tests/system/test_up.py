"""`tidegate up` from outside: what it prints, what it refuses, and that nothing is left behind."""

import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from data_plane.config.snapshots import SnapshotFile
from testing.stack import (
    Stack,
    StartStack,
    arguments,
    kill,
    left_behind,
    stack_options,
    still_running,
    wait_for,
)
from tidegate.stack.child import Child
from tidegate.stack.layout import StackOptions

# Some start two stacks one after the other; on a busy machine of two cores each takes half a minute.
pytestmark = pytest.mark.timeout(300)


def test_stops_cleanly_and_removes_what_was_temporary(start_stack: StartStack) -> None:
    stack = start_stack(regions=("solo",))
    processes = stack.processes()
    names = {process.name() for process in processes}
    assert len(processes) >= 4, names
    assert list(stack.temp_dir.iterdir()), "its data is where TMPDIR says"
    assert stack.stop() == 0
    assert still_running(processes) == []
    assert left_behind(stack.temp_dir) == []
    assert list(stack.temp_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("taken", "wanted_by", "option"),
    [
        (lambda options: options.control_plane_port, "control plane", "--control-plane-port"),
        (lambda options: options.first_node_port + 1, "node b-1", "--first-node-port"),
    ],
)
def test_names_the_port_that_is_taken_and_starts_nothing(
    tmp_path: Path, taken: Callable[[StackOptions], int], wanted_by: str, option: str
) -> None:
    options = stack_options(regions=("a", "b"))
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", taken(options)))
        squatter.listen()
        up = _up(tmp_path, options)
        wait_for(lambda: up.exit_code() is not None, 30, "it to give up")
    assert up.exit_code() == 1
    assert f"port {taken(options)} on 127.0.0.1 is taken (wanted by the {wanted_by})" in up.log_tail()
    assert option in up.log_tail()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_interrupted_while_starting_it_leaves_nothing(tmp_path: Path) -> None:
    options = stack_options(regions=("solo",))
    up = _up(tmp_path, options)
    wait_for(lambda: "Postgres" in up.log_tail(), 30, "it to have started something")

    def interrupted() -> bool:
        """By a shell's `kill %1` two come at once, the shell's and make's: some come while another is being taken, or
        while it exits.
        """
        for number in (signal.SIGINT, signal.SIGTERM) * 1_000:
            os.kill(up.pid, number)
        return up.exit_code() is not None

    wait_for(interrupted, 30, "it to stop")
    assert up.exit_code() == 130, up.log_tail()
    assert left_behind(tmp_path / "tmp") == []
    assert list((tmp_path / "tmp").iterdir()) == []


def test_keeps_state_in_its_data_directory(start_stack: StartStack) -> None:
    first = start_stack(regions=("solo",), keep=True)
    key = first.client_with_limit("keeper", 10)
    assert _check(first, key, cost=3)["remaining"] == 7
    assert first.stop() == 0
    second = start_stack(again=first)
    assert _check(second, key, cost=1)["remaining"] == 6
    assert second.data_dir is not None
    secrets = [second.data_dir / name for name in ("secrets.json", "admin-token", "signing-key")]
    assert [oct(path.stat().st_mode & 0o777) for path in secrets] == ["0o600"] * 3
    assert second.stop() == 0


def test_demo_prints_requests_that_work_and_nothing_outlives_it_when_it_is_killed(start_stack: StartStack) -> None:
    stack = start_stack(demo=True)
    (key,) = set(re.findall(r'"api_key": "(tg_[^"]+)"', stack.output()))
    decision = _check(stack, key, cost=1)
    assert (decision["client"], decision["plan"], decision["limit"]) == ("acme", "free", 1000)
    (pro,) = set(re.findall(r"X-API-Key: (tg_[^']+)'", stack.output()))
    url = f"{stack.nodes[1].url}/v1/authorize/api/users/123"
    answer = httpx.get(url, headers={"X-API-Key": pro}, trust_env=False)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-ratelimit-limit"] == "10000"
    processes = stack.processes()
    stack.child.kill()
    wait_for(lambda: still_running(processes) == [], 15, "its children to end with it")


def test_control_plane_may_die_and_decisions_go_on(start_stack: StartStack, tmp_path: Path) -> None:
    stack = start_stack()
    key = stack.client_with_limit("static", 100)
    here, there = stack.node("us-east"), stack.node("eu-west")
    revision = _check(stack, key, cost=1)["revision"]

    kill(stack.part("control-plane"))
    wait_for(lambda: "control plane ended with signal SIGKILL" in stack.output(), 10, "its end to be reported")
    assert _check(stack, key, cost=9)["remaining"] == 90
    stack.settle(there, key, 90)

    node = stack.part("data-plane", here.name)
    restarted = stack.again(node, tmp_path / "node.log")
    snapshot = SnapshotFile(Path(node.environ()["TIDEGATE_SNAPSHOT_FILE"]))
    wait_for(lambda: _revision_in(snapshot) == revision, 30, "the node to have written what it enforces")
    kill(node)
    restarted.start()
    try:
        wait_for(lambda: _is_ready(here.url), 30, "the node to serve from its snapshot")
        # while nobody listened here the other region may have fallen silent: its share is kept until it is heard again
        stack.settle(here, key, 90, timeout_s=30)
        decision = _check(stack, key, cost=1)
        assert (decision["remaining"], decision["revision"], decision["degraded"]) == (89, revision, False)
        stack.settle(there, key, 89)
    finally:
        restarted.stop()
    assert stack.stop() == 0


def _up(tmp_path: Path, options: StackOptions) -> Child:
    (tmp_path / "tmp").mkdir(exist_ok=True)
    up = Child(
        "tidegate up",
        [sys.executable, "-m", "tidegate", "up", *arguments(options, None)],
        log_path=tmp_path / "up.log",
        env={"TMPDIR": str(tmp_path / "tmp")},
    )
    up.start()
    return up


def _check(stack: Stack, key: str, cost: int) -> dict[str, object]:
    answer = httpx.post(f"{stack.nodes[0].url}/v1/check", json={"api_key": key, "cost": cost}, trust_env=False)
    assert answer.status_code == 200, answer.text
    decision = answer.json()
    assert isinstance(decision, dict)
    return decision


def _revision_in(file: SnapshotFile) -> int:
    snapshot = file.load()
    return 0 if snapshot is None else snapshot.revision


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
