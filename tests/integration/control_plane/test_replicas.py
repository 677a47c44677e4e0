"""Two replicas: parallel writes lose nothing, every node ends on the last, and jobs move when the leader is killed."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from control_plane.settings import Settings
from testing.control_plane import running
from tests.integration.control_plane.conftest import ADMIN_TOKEN
from tidegate.stack.child import Child, wait_until_ready
from tidegate.stack.local import TIDEGATE
from tidegate.stack.ports import LOOPBACK, free_ports

CLIENTS = 4
WRITERS = 8
ROUNDS = 2
WAIT_S = 60.0


async def counted_up(admin: httpx.AsyncClient, client: str) -> None:
    """Add one to a client's counter, as somebody who reads, changes and writes with the ETag that was read."""
    async with asyncio.timeout(WAIT_S):
        while True:
            read = await admin.get(f"/v1/clients/{client}")
            count = int(read.json()["attributes"]["count"]) + 1
            body = {"plan": "free", "attributes": {"count": str(count)}}
            written = await admin.put(f"/v1/clients/{client}", json=body, headers={"If-Match": read.headers["etag"]})
            if written.status_code == 200:
                return
            assert written.status_code in {412, 503}, written.text


async def test_parallel_writes_through_two_replicas_lose_nothing(make_settings: Callable[..., Settings]) -> None:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(running(make_settings(), ADMIN_TOKEN))
        two = await stack.enter_async_context(running(make_settings(), ADMIN_TOKEN))
        await one.add_region("us-east")
        two.credentials = one.credentials
        await one.admin.put("/v1/plans/free", json={})
        for number in range(CLIENTS):
            await one.admin.put(f"/v1/clients/c{number}", json={"plan": "free", "attributes": {"count": "0"}})
        nodes = [replica.node(f"node-{number}") for number, replica in enumerate([one, two, one, two])]
        for node in nodes:
            await stack.enter_async_context(node.following())

        async def write(writer: int) -> None:
            admin = (one, two)[writer % 2].admin
            for turn in range(ROUNDS):
                await counted_up(admin, f"c{(writer + turn) % CLIENTS}")

        await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
        found = [(await two.admin.get(f"/v1/clients/c{number}")).json()["attributes"] for number in range(CLIENTS)]
        assert sum(int(attributes["count"]) for attributes in found) == WRITERS * ROUNDS
        history = (await one.admin.get("/v1/revisions?limit=1000")).json()["items"]
        numbers = [item["revision"] for item in history]
        assert numbers == list(range(len(numbers), 0, -1))
        for node in nodes:
            await node.until(numbers[0])
            assert node.digest == history[0]["digest"] == node.computed_digest()


@pytest.mark.timeout(180)
async def test_jobs_move_within_15_s_when_the_leader_is_killed(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings()
    replicas = {}
    for name, port in zip(("a", "b"), free_ports(2), strict=True):
        child = Child(
            f"control plane {name}",
            [*TIDEGATE, "control-plane"],
            log_path=tmp_path / f"{name}.log",
            env={
                "TIDEGATE_HOST": LOOPBACK,
                "TIDEGATE_PORT": str(port),
                "TIDEGATE_DATABASE_URL": settings.database_url.get_secret_value(),
                "TIDEGATE_SIGNING_KEY_FILE": str(settings.signing_key_file),
                "TIDEGATE_ADMIN_TOKEN": ADMIN_TOKEN,
                "TIDEGATE_REPLICA": name,
            },
        )
        replicas[name] = (child, f"http://{LOOPBACK}:{port}")
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    try:
        for child, _ in replicas.values():
            child.start()
        for child, url in replicas.values():
            await asyncio.to_thread(wait_until_ready, child, lambda at=url: ready(at), timeout_s=60.0)
        async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=WAIT_S) as admin:
            leader = await until_leader(admin, replicas["a"][1], "")
            other = "b" if leader == "a" else "a"
            replicas[leader][0].kill()
            killed = time.monotonic()
            assert await until_leader(admin, replicas[other][1], leader) == other
            assert time.monotonic() - killed < 15
            url = f"{replicas[other][1]}/v1/jobs/drift-check/run"
            run = (await admin.post(url, headers={"Prefer": "wait=20"})).json()
            assert (run["replica"], run["last_outcome"]) == (other, "done")
    finally:
        for child, _ in replicas.values():
            child.stop()


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


async def until_leader(admin: httpx.AsyncClient, url: str, but: str) -> str:
    async with asyncio.timeout(WAIT_S):
        while True:
            leader = (await admin.get(f"{url}/v1/jobs")).json()["leader"]
            if leader is not None and leader["replica"] != but:
                name: str = leader["replica"]
                return name
            await asyncio.sleep(0.05)
