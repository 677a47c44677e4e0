"""Usage against what clients saw, while parts are killed: ``python -m tests.system.reconciliation --seconds 10``.

Every scenario has a client of its own, so that its total in Postgres can be held against the answers that its callers
read. A request whose answer never came may have been counted: it is listed apart.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import httpx

from testing.stack import ADMIN_TOKEN, stack_options, wait_for
from tidegate.stack.child import Child
from tidegate.stack.keyring import open_admin_token, open_keyring
from tidegate.stack.layout import DataDir, NodePlace
from tidegate.stack.local import LocalStack
from tidegate.stack.progress import Progress

CONNECTIONS_A_NODE = 4
SETTLE_S = 60.0
LAST_SECOND_S = 1.0
HEADERS = (
    "killed", "answers", "allowed", "denied", "no answer", "allowed in Postgres", "denied in Postgres", "missing",
    "of the killed node's last second",
)  # fmt: skip


class Killed(NamedTuple):
    """When a part was killed, and when it was started again. Times are ``time.monotonic()``."""

    at: float
    back_at: float


@dataclass
class Seen:
    """What the callers of one scenario saw. Times are ``time.monotonic()``."""

    answers: list[tuple[str, float, bool]] = field(default_factory=list)
    unanswered: int = 0

    def count(self, *, allowed: bool) -> int:
        return sum(1 for _, _, passed in self.answers if passed == allowed)

    def last_of(self, node: str, killed: Killed) -> int:
        """What a node answered in its last second; what it had answered is read until long after it was killed."""
        begun = killed.at - LAST_SECOND_S
        return sum(1 for name, at, _ in self.answers if name == node and begun <= at <= killed.back_at)


@dataclass(frozen=True)
class Row:
    """One scenario's outcome. ``missing``: answers that Postgres does not know."""

    killed: str
    answers: int
    allowed: int
    denied: int
    unanswered: int
    counted_allowed: int
    counted_denied: int
    in_last_second: int

    @property
    def missing(self) -> int:
        return self.answers - self.counted_allowed - self.counted_denied

    def cells(self) -> tuple[str, ...]:
        figures = (
            self.answers, self.allowed, self.denied, self.unanswered, self.counted_allowed, self.counted_denied,
            self.missing, self.in_last_second,
        )  # fmt: skip
        return (self.killed, *(str(figure) for figure in figures))


class Load:
    """Callers of every node in a thread of their own, until ``stop``."""

    def __init__(self, places: Sequence[NodePlace], key: str) -> None:
        self.seen = Seen()
        self._places = places
        self._key = key
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> Seen:
        self._stopping.set()
        self._thread.join()
        return self.seen

    async def _run(self) -> None:
        await asyncio.gather(*(self._call(place) for place in self._places for _ in range(CONNECTIONS_A_NODE)))

    async def _call(self, place: NodePlace) -> None:
        async with httpx.AsyncClient(base_url=place.url, trust_env=False, timeout=2.0) as client:
            while not self._stopping.is_set():
                try:
                    answer = await client.post("/v1/check", json={"api_key": self._key})
                except httpx.ConnectError:
                    await asyncio.sleep(0.05)  # it was never asked
                except httpx.HTTPError:
                    self.seen.unanswered += 1
                else:
                    self.seen.answers.append((place.name, time.monotonic(), answer.status_code == 200))
                await asyncio.sleep(0.005)


class World:
    """A stack whose parts can be killed and started again."""

    def __init__(self, stack: LocalStack, url: str, names: Sequence[str]) -> None:
        self.stack = stack
        self.names = names
        self.admin = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}, trust_env=False, timeout=10
        )

    def part(self, name: str) -> Child:
        return next(child for child in self.stack.children() if child.name == name)

    def restart(self, child: Child, down_s: float) -> Killed:
        """Kill it, leave it dead for a while, and start it; a part may not start while its last life still ends."""
        at = time.monotonic()
        child.kill()
        time.sleep(down_s)
        killed = Killed(at, time.monotonic())
        deadline = killed.back_at + SETTLE_S
        child.start()
        while child.exit_code() is not None or not self._healthy():
            assert time.monotonic() < deadline, f"{child.name} did not come back: {child.log_tail()}"
            if child.exit_code() is not None:
                child.start()
            time.sleep(0.1)
        return killed

    def _healthy(self) -> bool:
        try:
            return self.admin.get("/readyz").is_success
        except httpx.HTTPError:
            return False

    def usage(self, client: str) -> tuple[int, int]:
        """Allowed and denied in Postgres, once every region is complete up to now."""
        now = datetime.now(UTC)

        def complete() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                answer = self.admin.get("/v1/usage")
                if answer.is_success:
                    until = answer.json()["complete_until"].values()
                    return bool(until) and all(at and datetime.fromisoformat(at) > now for at in until)
            return False

        wait_for(complete, SETTLE_S, "usage to be complete")
        items = self.admin.get(f"/v1/clients/{client}/usage").raise_for_status().json()["items"]
        return sum(item["allowed"] for item in items), sum(item["denied"] for item in items)

    def scenario(self, kills: Sequence[str], seconds: float, down_s: float) -> Row:
        """Load all nodes for ``seconds`` and longer; meanwhile kill parts, and start each again ``down_s`` later."""
        client = "-".join(kills).replace(" ", "-").lower() or "nobody"
        limit = {"name": "hourly", "limit": round(seconds * 100), "window_s": 3600, "mode": "regional"}
        self.admin.put(f"/v1/plans/{client}", json={"limits": [limit]}).raise_for_status()
        self.admin.put(f"/v1/clients/{client}", json={"plan": client}).raise_for_status()
        made = self.admin.post(f"/v1/clients/{client}/keys", json={}, headers={"Prefer": "wait=10"})
        load = Load(self.stack.nodes, made.raise_for_status().json()["secret"])
        load.start()
        restarts: dict[str, Killed] = {}
        pause_s = seconds / (len(kills) + 1)
        try:
            time.sleep(pause_s)
            for killed in kills:
                restarts[killed] = self.restart(self.part(killed), down_s)
                time.sleep(pause_s)
        finally:
            seen = load.stop()
        allowed, denied = self.usage(client)
        return Row(
            killed=", ".join(kills) or "nothing",
            answers=len(seen.answers),
            allowed=seen.count(allowed=True),
            denied=seen.count(allowed=False),
            unanswered=seen.unanswered,
            counted_allowed=allowed,
            counted_denied=denied,
            in_last_second=sum(seen.last_of(part.removeprefix("node "), killed) for part, killed in restarts.items()),
        )


@contextlib.contextmanager
def world(directory: Path, regions: tuple[str, ...], nodes_per_region: int) -> Iterator[World]:
    """A stack of these regions under ``directory``."""
    options = stack_options(regions=regions, nodes_per_region=nodes_per_region)
    data_dir = DataDir(directory)
    for path in (data_dir.logs, data_dir.root / "snapshots"):
        path.mkdir(parents=True, exist_ok=True)
    open_admin_token(data_dir, ADMIN_TOKEN)
    keyring = open_keyring(data_dir, options.regions)
    stack = LocalStack(options, data_dir, keyring, progress=Progress(), interrupted=lambda: None)
    try:
        stack.start(ADMIN_TOKEN)
        made = World(stack, stack.control_plane_url, [place.name for place in stack.nodes])
        with contextlib.closing(made.admin):
            yield made
    finally:
        stack.stop()


def check(row: Row) -> None:
    """What must hold: nothing is counted that nobody asked, and only a killed node's last second may be missing."""
    assert -row.unanswered <= row.missing <= row.in_last_second, row
    assert row.counted_allowed >= row.allowed - row.in_last_second, row
    assert row.counted_denied >= row.denied - row.in_last_second, row


def main() -> None:
    """Run every scenario and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each scenario has load")
    parser.add_argument("--down", type=float, default=3.0, help="how long a killed part stays away")
    arguments = parser.parse_args()
    regions = ("us-east", "eu-west")
    parts = ("node us-east-1", "control plane", "Postgres", "Valkey of eu-west")
    with tempfile.TemporaryDirectory() as directory, world(Path(directory), regions, 2) as made:
        rows = [made.scenario((), arguments.seconds, arguments.down)]
        rows += [made.scenario((part,), arguments.seconds, arguments.down) for part in parts]
        rows.append(made.scenario(parts[:3], 2 * arguments.seconds, arguments.down))
    for line in (HEADERS, *(row.cells() for row in rows)):
        sys.stdout.write("| " + " | ".join(line) + " |\n")
    for row in rows:
        if "Valkey" not in row.killed:  # a store that is not durable may lose what it had
            check(row)


if __name__ == "__main__":
    main()
