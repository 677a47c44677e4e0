"""The region's snapshot in its store: a pod without a file becomes ready while the control plane is away.

A control plane whose database was restored goes back to an earlier revision, and so do the snapshot and who reads it.
"""

import asyncio
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
import redis

from data_plane.config.index import ConfigSet
from data_plane.config.snapshots import KEY, StoredSnapshot
from data_plane.config.stream import Snapshot
from data_plane.node import Node
from testing.agent import agent_beside
from testing.node import SIGNING_KEY, document_of, key_of, rule, serving, settings_for, write_snapshot
from testing.played import PlayedControlPlane
from testing.proxy import Proxy
from tidegate.contract.config import Client, Plan, signed_head

CONFIG = [
    Plan(plan="p", limits=(rule(1, "hourly", 5),)), Client(client="acme", plan="p"), key_of("acme", "tg_acme"),
    # more than a piece
    *(Client(client=f"client-{number}", plan="p", attributes={"of": f"{number:040}"}) for number in range(2_000)),
]  # fmt: skip


async def until_stored(store):
    async with asyncio.timeout(10):
        while not await asyncio.to_thread(store.exists, KEY):
            await asyncio.sleep(0.02)


async def test_a_node_without_a_file_starts_from_the_regions_store(tmp_path, valkey_url):
    with redis.Redis.from_url(valkey_url) as store:
        async with agent_beside(tmp_path, valkey_url, CONFIG, revision=7):
            await until_stored(store)
        assert sum(1 for _ in store.scan_iter(f"{KEY}:*")) > 1
    node = Node(settings_for(tmp_path / "no-such-file", valkey_url))
    async with serving(node) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client, asyncio.timeout(10):
        while (await client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.02)
        answer = (await client.post("/v1/check", json={"api_key": "tg_acme"})).json()
    assert (answer["allowed"], answer["client"], answer["revision"]) == (True, "acme", 7)
    assert (tmp_path / "no-such-file").exists(), "from then on it has a file as well"


@pytest.mark.parametrize("what", ["piece", "contents"])
async def test_what_was_tampered_with_in_the_store_is_not_put_in_force(tmp_path, valkey_url, what):
    with redis.Redis.from_url(valkey_url) as store:
        async with agent_beside(tmp_path, valkey_url, CONFIG, revision=7):
            await until_stored(store)
        if what == "piece":
            store.set(next(iter(store.scan_iter(f"{KEY}:*"))), b"garbage")
        else:
            store.set(
                KEY, store.get(KEY).replace(b'"revision":7', b'"revision":9').replace(b'"pieces":', b'"pieces":9')
            )
    node = Node(settings_for(tmp_path / "no-such-file", valkey_url))
    async with serving(node) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        for _ in range(20):
            assert (await client.get("/readyz")).json()["missing"] == ["config"]
            await asyncio.sleep(0.05)


async def test_the_stored_snapshot_goes_back_with_a_control_plane_that_was_restored(tmp_path, valkey_url):
    with redis.Redis.from_url(valkey_url) as store:
        async with agent_beside(tmp_path, valkey_url, CONFIG, revision=7) as (_, control_plane), asyncio.timeout(10):
            await until_stored(store)
            control_plane.publish("us-east", CONFIG[:3], 5)
            while msgspec.json.decode(await asyncio.to_thread(store.get, KEY))["revision"] != 5:
                await asyncio.sleep(0.02)


async def test_what_the_control_plane_names_is_not_replaced_by_what_the_store_kept(tmp_path, valkey_url):
    with redis.Redis.from_url(valkey_url) as store:
        async with agent_beside(tmp_path, valkey_url, CONFIG, revision=7):
            await until_stored(store)
    snapshot = tmp_path / "snapshot"
    await write_snapshot(snapshot, CONFIG[:3], revision=5)
    port = urlsplit(valkey_url).port
    async with PlayedControlPlane().running() as control_plane, Proxy(port).running() as proxy:
        await proxy.cut()
        control_plane.publish("us-east", CONFIG[:3], 5)
        url = valkey_url.replace(f":{port}", f":{proxy.port}")
        node = Node(settings_for(snapshot, url, control_plane_url=control_plane.url))
        async with serving(node), asyncio.timeout(10):
            while not node.status()["control_plane"]["heard_at_s"]:
                await asyncio.sleep(0.02)
            await proxy.heal()
            while not node.store.status().usable:
                await asyncio.sleep(0.02)
            for _ in range(30):  # it looks into the store once a second
                assert node.status()["applied_revision"] == 5
                await asyncio.sleep(0.05)


async def test_agents_that_save_one_configuration_at_once_write_the_same(tmp_path, valkey_url):
    """Each has it in the order in which it came to know it."""
    changes = [document_of(value) for value in CONFIG]
    configs = [ConfigSet.empty().with_changes(changes), ConfigSet.empty().with_changes(reversed(changes))]
    signature = SIGNING_KEY.sign(signed_head(7, configs[0].digest)).hex()
    stores = [Node(settings_for(tmp_path / f"of-{number}", valkey_url)).store for number in range(2)]
    for store in stores:
        await store.start()
    try:
        agents = [StoredSnapshot(store) for store in stores]
        saving = zip(agents, configs, strict=True)
        await asyncio.gather(*(agent.save(Snapshot(7, signature, config)) for agent, config in saving))
        found = await agents[0].load(after=0)
        assert (found.revision, found.config.digest) == (7, configs[0].digest)
    finally:
        for store in stores:
            await store.close()
