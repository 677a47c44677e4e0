"""`tidegate up` as a user runs it: a process of its own, watched from outside."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from testing.node import PATIENT_MS
from tidegate.stack.child import Child, wait_until_ready
from tidegate.stack.layout import NodePlace, StackOptions, agent_places, node_places, require_sound
from tidegate.stack.ports import LOOPBACK, free_ports
from tidegate.stack.progress import StackError

READY_TIMEOUT_S = 100.0
ADMIN_TOKEN = "tests-set-their-own-admin-token"
HOUR_S = 3600
StartStack = Callable[..., "Stack"]


class Stack:
    """A running `tidegate up` in ``directory``. Without ``keep`` it keeps its data in a temporary directory there.

    Nodes of a ``patient`` one wait for the store however busy the machine is, so that they never decide without it.
    """

    def __init__(self, directory: Path, options: StackOptions, *, keep: bool, patient: bool = False) -> None:
        self.options = options
        self.nodes = node_places(options)
        self.agents = agent_places(options)
        self.temp_dir = directory / "tmp"
        self.temp_dir.mkdir(parents=True, exist_ok=True)
        self.data_dir = directory / "data" if keep else None
        self.log_path = directory / "up.log"
        self.log_path.unlink(missing_ok=True)
        self.child = Child(
            "tidegate up",
            [sys.executable, "-m", "tidegate", "up", *arguments(options, self.data_dir)],
            log_path=self.log_path,
            env={"TIDEGATE_ADMIN_TOKEN": ADMIN_TOKEN, "TMPDIR": str(self.temp_dir)}
            | ({"TIDEGATE_REDIS_DEADLINE_MS": str(PATIENT_MS)} if patient else {}),
        )
        self.admin = httpx.Client(
            base_url=f"http://{LOOPBACK}:{options.control_plane_port}",
            headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
            timeout=45,
            trust_env=False,
        )

    def start(self) -> None:
        """Start it and wait for its ready line."""
        self.child.start()
        wait_until_ready(self.child, lambda: "\nready: " in "\n" + self.output(), timeout_s=READY_TIMEOUT_S)

    def stop(self) -> int:
        """SIGTERM, as a terminal or a supervisor would; returns the exit code."""
        self.admin.close()
        self.child.stop(timeout_s=40.0)
        code = self.child.exit_code()
        assert code is not None
        return code

    def output(self) -> str:
        """All that it printed so far."""
        return self.log_path.read_text() if self.log_path.exists() else ""

    def node(self, region: str, nth: int = 1) -> NodePlace:
        """The ``nth`` node of a region, from 1."""
        return next(place for place in self.nodes if place.name == f"{region}-{nth}")

    def processes(self) -> list[psutil.Process]:
        """Everything that it started and that still runs."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.child.pid).children(recursive=True)
        return []

    def part(self, command: str, node: str | None = None) -> psutil.Process:
        """The process that runs ``tidegate <command>``, for ``node`` if named."""
        for process in self.processes():
            if command in process.cmdline() and (node is None or process.environ().get("TIDEGATE_NODE") == node):
                return process
        raise AssertionError(f"no process runs {command} {node or ''}")

    def again(self, process: psutil.Process, log_path: Path) -> Child:
        """A child that is started as ``process`` was: its command line and its settings. Ask before you kill it."""
        settings = {name: value for name, value in process.environ().items() if name.startswith("TIDEGATE_")}
        return Child(f"{process.cmdline()[-1]} again", process.cmdline(), env=settings, log_path=log_path)

    def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """PUT at the admin API, and wait until every node enforces it."""
        return self._write("PUT", path, body)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST at the admin API, and wait until every node enforces it."""
        return self._write("POST", path, body)

    def client_with_limit(self, client: str, limit: int, **rule: Any) -> str:
        """A client on a plan of its own with one hourly limit, in force on every node; returns its key."""
        hourly = {"name": "hourly", "scope": "client", "limit": limit, "window_s": HOUR_S, "mode": "shared"} | rule
        self.put(f"/v1/plans/plan-{client}", {"limits": [hourly]})
        self.put(f"/v1/clients/{client}", {"plan": f"plan-{client}"})
        secret = self.post(f"/v1/clients/{client}/keys", {})["secret"]
        assert isinstance(secret, str)
        return secret

    def remaining(self, place: NodePlace, key: str) -> int:
        """What a node thinks is left for a key; asking takes nothing."""
        answer = httpx.post(f"{place.url}/v1/check", json={"api_key": key, "cost": 0}, trust_env=False).json()
        return int(answer["remaining"])

    def wait_for_peers(self, timeout_s: float = 30.0) -> None:
        """Wait until no node takes another region of the stack for unreachable, and so keeps its share of limits."""
        regions = {place.region for place in self.nodes}

        def reached(place: NodePlace) -> bool:
            peers = httpx.get(f"{place.url}/v1/status", trust_env=False).json()["peers"]
            return all(region in peers and not peers[region]["silent"] for region in regions - {place.region})

        wait_for(lambda: all(reached(place) for place in self.nodes), timeout_s, "all regions to reach one another")

    def settle(self, place: NodePlace, key: str, remaining: int, timeout_s: float = 10.0) -> float:
        """Wait until a node knows that so much is left; returns how long that took, in seconds."""
        began = time.monotonic()
        wait_for(lambda: self.remaining(place, key) == remaining, timeout_s, f"{place.name} to see {remaining} left")
        return time.monotonic() - began

    def _write(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        response = self.admin.request(method, path, json=body, headers={"Prefer": "wait=30"})
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        assert response.headers.get("preference-applied") == "wait", f"{method} {path}: not every node enforces it"
        answer = response.json()
        assert isinstance(answer, dict)
        return answer


@contextlib.contextmanager
def stacks_started(directories: pytest.TempPathFactory) -> Iterator[StartStack]:
    """Start with ``start(regions=(...), nodes_per_region=1, demo=False, keep=False)``; all stop with the block.

    For tests that stop it or kill parts of it; ``keep`` gives it a data directory, ``again=stack`` uses that one's.
    A stack that idles costs a tenth of a core, so none should outlive the tests that want it.
    """
    started: list[Stack] = []

    def start(*, keep: bool = False, again: Stack | None = None, patient: bool = False, **wanted: Any) -> Stack:
        if again is None:
            stack = Stack(directories.mktemp("stack"), stack_options(**wanted), keep=keep, patient=patient)
        else:
            stack = Stack(again.log_path.parent, again.options, keep=True)
        started.append(stack)
        stack.start()
        return stack

    try:
        yield start
    finally:
        for stack in started:
            stack.stop()


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait until ``condition()``; fail with ``what`` when it takes too long."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.02)


def stack_options(
    *,
    regions: tuple[str, ...] = ("us-east", "eu-west"),
    nodes_per_region: int = 1,
    demo: bool = False,
    rls: bool = False,
) -> StackOptions:
    """Options whose ports are free at this moment; a stack wants some of them in a row."""
    for _ in range(50):
        control_plane_port, first_node_port, first_agent_port, rls_port = free_ports(4)
        options = StackOptions(
            regions=regions,
            control_plane_port=control_plane_port,
            first_node_port=first_node_port,
            first_agent_port=first_agent_port,
            nodes_per_region=nodes_per_region,
            demo=demo,
            rls_port=rls_port if rls else None,
        )
        with contextlib.suppress(StackError):
            require_sound(options)
            return options
    raise AssertionError("found no free ports in a row")


def kill(process: psutil.Process) -> None:
    """End a process as a crash would, and wait until it is gone."""
    process.send_signal(signal.SIGKILL)
    with contextlib.suppress(psutil.NoSuchProcess):
        wait_for(lambda: process.status() == psutil.STATUS_ZOMBIE, 5, f"{process.pid} to end")


def still_running(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those of ``processes`` that did not end (a zombie ended; only its parent has not noticed)."""

    def runs(process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return False

    return [process for process in processes if runs(process)]


def left_behind(marker: Path) -> list[str]:
    """Command lines of processes that mention ``marker`` in their command line or environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            words = [*process.cmdline(), *process.environ().values()]
            if process.pid != os.getpid() and any(str(marker) in word for word in words):
                found.append(" ".join(process.cmdline()))
    return found


def arguments(options: StackOptions, data_dir: Path | None) -> list[str]:
    """The command line that asks for ``options``."""
    words = ["--regions", ",".join(options.regions)]
    words += ["--control-plane-port", str(options.control_plane_port)]
    words += ["--first-node-port", str(options.first_node_port)]
    words += ["--first-agent-port", str(options.first_agent_port)]
    words += ["--nodes-per-region", str(options.nodes_per_region)]
    words += ["--demo"] if options.demo else []
    words += ["--rls-port", str(options.rls_port)] if options.rls_port is not None else []
    words += ["--data-dir", str(data_dir)] if data_dir is not None else []
    return words
