"""Two regions with a real store each, and a proxy between them that cuts."""

import asyncio
import contextlib
import time
import zlib
from collections.abc import AsyncIterator

import httpx
import msgspec
import pytest
from structlog.testing import capture_logs

from data_plane.agent import Agent
from data_plane.http.peer_handler import MAX_BODY_BYTES
from data_plane.node import Node
from testing.agent import agent_beside
from testing.node import (
    NOWHERE,
    agent_settings_for,
    key_of,
    node_client,
    rule,
    serving,
    settings_for,
    write_snapshot,
)
from testing.played import PlayedControlPlane
from testing.proxy import Proxy
from tidegate.contract.config import Client, Override, Plan, Region
from tidegate.contract.counts import MAX_CELLS, Cell, Counts, signed_counts
from tidegate.contract.credentials import is_signed_by, make_credential, region_private_key, region_public_key
from tidegate.contract.rights import Ask, Asks, Gifts, signed_asks, signed_gifts
from tidegate.stack.ports import free_ports

CREDENTIALS = {"us-east": make_credential("region", b"e" * 32), "eu-west": make_credential("region", b"w" * 32)}
LIMITS = (
    rule(1, "window", 100, mode="shared", algorithm="sliding_window"),
    rule(2, "bucket", 200, mode="shared", algorithm="token_bucket", window_us=360_000_000_000),
    rule(3, "fixed", 300, mode="shared", algorithm="fixed_window", window_us=360_000_000_000),
    # so long that on a slow machine, where the other region falls silent meanwhile, enough is left of two windows
    rule(4, "log", 400, mode="shared", algorithm="sliding_log", window_us=366 * 86_400_000_000),
)
FULL = {"window": 100, "bucket": 200, "fixed": 300, "log": 400}

OF_BIG = {name: 200 * limit for name, limit in FULL.items()}
"""What the client ``big`` has instead."""


class TwoRegions:
    """``clients`` ask nodes, ``agents`` agents; ``proxies[region]`` is how the other region reaches this one."""

    def __init__(self, clients, agents, proxies, ports):
        self.clients = clients
        self.agents = agents
        self.proxies = proxies
        self.ports = ports

    async def take(self, region, cost, key="tg_acme"):
        answer = await self.clients[region].post("/v1/check", json={"api_key": key, "cost": cost, "explain": True})
        body = answer.json()
        return {limit["policy"]: limit["remaining"] for limit in body["limits"]} if body["allowed"] else None

    async def settles(self, region, used, of=FULL, key="tg_acme"):
        """Wait until a region knows that ``used`` units are gone."""
        wanted = {name: limit - used for name, limit in of.items()}
        async with asyncio.timeout(15):
            while (seen := await self.take(region, 0, key)) != wanted:
                await asyncio.sleep(0.02)
        return seen

    async def hear_each_other(self):
        """Until then a region keeps the other's share for it."""
        async with asyncio.timeout(15):
            for region, other in (("us-east", "eu-west"), ("eu-west", "us-east")):
                while (await self.peers(region)).get(other, {}).get("silent", True):
                    await asyncio.sleep(0.02)

    async def peers(self, region):
        return (await self.clients[region].get("/v1/status")).json()["peers"]

    async def cut(self):
        for proxy in self.proxies.values():
            await proxy.cut()

    async def heal(self):
        for proxy in self.proxies.values():
            await proxy.heal()


@pytest.fixture
async def regions(tmp_path, start_store):
    stores = {"us-east": start_store(), "eu-west": start_store()}
    ports = dict(zip(CREDENTIALS, free_ports(2), strict=True))
    async with contextlib.AsyncExitStack() as stack:
        proxies = {region: await stack.enter_async_context(Proxy(port).running()) for region, port in ports.items()}
        config = [
            Plan(plan="p", limits=LIMITS),
            Client(client="acme", plan="p"),
            key_of("acme", "tg_acme"),
            Client(client="big", plan="p", overrides={name: Override(limit=limit) for name, limit in OF_BIG.items()}),
            key_of("big", "tg_big"),
            *(
                Region(region=name, peer_url=proxies[name].url, public_key=region_public_key(CREDENTIALS[name]))
                for name in CREDENTIALS
            ),
        ]
        clients, agents = {}, {}
        control_plane = await stack.enter_async_context(PlayedControlPlane().running())
        for name, credential in CREDENTIALS.items():
            of_region = {
                "region": name, "region_credential": credential, "control_plane_url": control_plane.url,
            }  # fmt: skip
            for snapshot in (tmp_path / name, tmp_path / f"{name}-agent"):
                await write_snapshot(snapshot, config)
            agent = Agent(
                agent_settings_for(tmp_path / f"{name}-agent", stores[name].url, node=f"{name}-agent", **of_region)
            )
            node = Node(settings_for(tmp_path / name, stores[name].url, node=f"{name}-1", **of_region))
            for process, into, port in ((agent, agents, ports[name]), (node, clients, 0)):
                url = await stack.enter_async_context(serving(process, port=port))
                into[name] = await stack.enter_async_context(httpx.AsyncClient(base_url=url, trust_env=False))
        both = TwoRegions(clients, agents, proxies, ports)
        await both.hear_each_other()
        yield both
    for store in stores.values():
        store.child.stop()


async def test_what_one_region_admits_counts_in_the_other_for_every_algorithm(regions):
    await regions.take("us-east", 30)
    await regions.settles("eu-west", 30)
    await regions.take("eu-west", 40)
    await regions.settles("us-east", 70)
    assert await regions.take("us-east", 31) is None
    assert await regions.take("eu-west", 31) is None
    assert (await regions.take("us-east", 30))["window"] == 0


async def test_a_cut_stops_nobody_and_what_happened_meanwhile_is_told_after_it(regions):
    await regions.take("us-east", 10)
    await regions.settles("eu-west", 10)
    await regions.cut()
    assert await regions.take("us-east", 20)
    assert await regions.take("eu-west", 25)
    await _until_lost(regions)
    await regions.heal()
    await regions.settles("us-east", 55)
    await regions.settles("eu-west", 55)


async def _until_lost(regions):
    async with asyncio.timeout(15):
        while True:
            status = (await regions.agents["us-east"].get("/v1/status")).json()
            if status["peers"]["eu-west"]["last_heard_s"] > 1.5:
                return
            await asyncio.sleep(0.05)


def message(region="us-east", sent_at=None, cells=(), incarnation="x", **members):
    counts = Counts(region=region, incarnation=incarnation, sent_at=sent_at or time.time(), cells=cells, **members)
    return zlib.compress(msgspec.msgpack.encode(counts))


CELL = Cell(b"{acme}1", 7, 1)


def forged():
    """What is said, by whom it claims to be, who signed it, and the answer; made now, because messages age."""
    return {
        "nobody": (None, None, message(), 401),
        "unknown region": ("mars", "us-east", message(), 401),
        "own region": ("eu-west", "eu-west", message(region="eu-west"), 401),
        "signed by another": ("us-east", "eu-west", message(), 401),
        "for another region": ("us-east", "us-east", message(region="eu-west"), 403),
        "not deflated": ("us-east", "us-east", b"garbage", 400),
        "not counts": ("us-east", "us-east", zlib.compress(b"garbage"), 400),
        "no text": ("us-east", "us-east", zlib.compress(b"\x81\xa6region\xa1\xff"), 400),
        "nested deeply": ("us-east", "us-east", zlib.compress(b"\x81\xa1x" + b"\x91" * 100_000), 400),
        "a bomb": ("us-east", "us-east", zlib.compress(bytes(50_000_000)), 413),
        "too much": ("us-east", "us-east", bytes(1_100_000), 413),
        "too many cells": ("us-east", "us-east", message(cells=(CELL,) * (MAX_CELLS + 1)), 413),
        "old": ("us-east", "us-east", message(sent_at=1.0), 400),
        "another version": ("us-east", "us-east", message(version=99), 400),
        "more returned than taken": ("us-east", "us-east", message(cells=(Cell(b"{acme}1", 7, 1, 2),)), 400),
        "a window without end": ("us-east", "us-east", message(cells=(Cell(b"{acme}1", 2**63, 1),)), 400),
        "a window before time": ("us-east", "us-east", message(cells=(Cell(b"{acme}1", -1, 1),)), 400),
        "a count without end": ("us-east", "us-east", message(cells=(Cell(b"{acme}1", 7, 2**64 - 1, 2**64 - 1),)), 400),
        "a key without end": ("us-east", "us-east", message(cells=(Cell(b"{acme}1" * 1_000, 7, 1),)), 400),
        "a life without end": ("us-east", "us-east", message(incarnation="x" * 300), 400),
        "another's life without end": ("us-east", "us-east", message(of="eu-west/" + "x" * 300), 400),
        "slices without end": ("us-east", "us-east", message(complete=((1, 1),) * 100), 400),
        "a slice of no time": ("us-east", "us-east", message(complete=((1, -(2**63)),)), 400),
    }


def question(region="us-east", key=b"{acme}5", incarnation=7, sent_at=None, **members):
    figures = {"id": 1, "to_incarnation": 0, "units": 0, "quanta": 0, "have": 0, "rate": 1, **members}
    asks = Asks(region=region, incarnation=incarnation, sent_at=sent_at or time.time(), asks=(Ask(key=key, **figures),))
    return zlib.compress(msgspec.msgpack.encode(asks))


def forged_questions():
    """As ``forged``, for rights."""
    return {
        "nobody": (None, None, question(), 401),
        "signed by another": ("us-east", "eu-west", question(), 401),
        "for another region": ("us-east", "us-east", question(region="eu-west"), 403),
        "counts, not questions": ("us-east", "us-east", message(), 400),
        "nested deeply": ("us-east", "us-east", zlib.compress(b"\x81\xa1x" + b"\x91" * 100_000), 400),
        "a bomb": ("us-east", "us-east", zlib.compress(bytes(50_000_000)), 413),
        "old": ("us-east", "us-east", question(sent_at=1.0), 400),
        "no such life": ("us-east", "us-east", question(incarnation=0), 400),
        "a key without end": ("us-east", "us-east", question(key=b"{acme}5" * 1_000), 400),
        "less than nothing": ("us-east", "us-east", question(units=-1), 400),
    }


async def in_chunks(size: int) -> AsyncIterator[bytes]:
    yield bytes(size)


async def test_what_no_peer_would_ask_is_refused_and_gives_nothing_away(regions):
    west = regions.agents["eu-west"]
    for why, (claimed, signer, body, status) in forged_questions().items():
        answer = await put(west, "/internal/v1/rights", claimed, signer, body, signed_asks)
        assert answer.status_code == status, why
    with contextlib.suppress(httpx.TransportError):  # the node need not read on to the end
        much = await put(west, "/internal/v1/rights", "us-east", "us-east", bytes(100_000_000), signed_asks)
        assert much.status_code == 413
    assert (await west.post("/internal/v1/rights", content=in_chunks(MAX_BODY_BYTES + 1))).status_code == 413
    assert (await west.post("/internal/v1/rights", headers={"x": "x" * 100_000})).status_code == 431
    assert 'tidegate_peer_messages_refused_total{reason="too_large"} 3.0' in (await west.get("/metrics")).text
    unknown = await put(west, "/internal/v1/rights", "us-east", "us-east", question(), signed_asks)
    gifts = msgspec.msgpack.decode(zlib.decompress(unknown.content), type=Gifts)
    assert (unknown.status_code, gifts.gifts) == (200, ()), "a limit that is not strict here"
    region = region_public_key(CREDENTIALS["eu-west"])
    signature = bytes.fromhex(unknown.headers["x-tidegate-signature"])
    assert not is_signed_by([region], signature, signed_gifts("us-east", question(rate=2), unknown.content))
    assert (await west.get("/v1/status")).json()["rights"]["given"] == {}


async def put(client, path, claimed, signer, body, signed):
    """A message of whoever claims to be a region, signed with the key of another or of none."""
    headers = {}
    if claimed is not None:
        signature = region_private_key(CREDENTIALS[signer]).sign(signed("eu-west", body))
        headers = {"x-tidegate-region": claimed, "x-tidegate-signature": signature.hex()}
    return await client.post(path, content=body, headers=headers)


async def test_what_no_peer_would_say_is_refused_counted_and_harms_nothing(regions):
    await regions.take("us-east", 5)
    await regions.settles("eu-west", 5)
    west = regions.agents["eu-west"]
    # Prometheus sees no increase in a counter that appears with its first refusal
    assert 'tidegate_peer_messages_refused_total{reason="bad_signature"} 0.0' in (await west.get("/metrics")).text
    with capture_logs() as lines:
        for why, (claimed, signer, body, status) in forged().items():
            answer = await put(west, "/internal/v1/counts", claimed, signer, body, signed_counts)
            assert answer.status_code == status, why
    (said,) = [line for line in lines if line["event"] == "peer_message_refused"]
    assert (said["claims"], said["why"]) == ("", "no such peer region"), "the first; the others are only counted"
    await regions.settles("eu-west", 5)
    # cells that no limit explains, and earlier counts of ours from who has no cause to hand them back, change nothing
    huge = message(cells=(Cell(b"{acme}1", int(time.time()) // 3_600, 10**9),))
    assert (await put(west, "/internal/v1/counts", "us-east", "us-east", huge, signed_counts)).status_code == 200
    own = (await put(west, "/internal/v1/counts", "us-east", "us-east", message(), signed_counts)).json()["incarnation"]
    ours = message(cells=(Cell(b"{acme}1", int(time.time()) // 3_600, 50),), of=f"eu-west/{own}")
    assert (await put(west, "/internal/v1/counts", "us-east", "us-east", ours, signed_counts)).status_code == 200
    await regions.settles("eu-west", 5)
    metrics = (await west.get("/metrics")).text
    assert 'tidegate_peer_messages_refused_total{reason="implausible_cell"} 2.0' in metrics
    assert 'tidegate_peer_messages_refused_total{reason="bad_signature"} 1.0' in metrics
    exchange = (await west.get("/v1/status")).json()["exchange"]
    assert exchange["refused"]["implausible_cell"] == 2
    assert exchange["refused"]["bad_signature"] == 1
    assert min(exchange[f"{what}_{way}"] for what in ("messages", "bytes") for way in ("sent", "received")) > 0


async def test_a_bucket_that_never_fills_up_is_heard_however_much_was_taken_since_its_birth(regions):
    # 12,900 of a bucket of 200 that gains 2 an hour: what 6,400 hours explain
    born_us = time.time_ns() // 1_000 - 6_400 * 3_600_000_000
    west = regions.agents["eu-west"]
    busy = message(cells=(Cell(b"{acme}2", born_us, 12_900),))
    assert (await put(west, "/internal/v1/counts", "us-east", "us-east", busy, signed_counts)).status_code == 200
    assert await regions.take("eu-west", 1) is None
    more = message(cells=(Cell(b"{other}2", born_us, 10**7),))
    assert (await put(west, "/internal/v1/counts", "us-east", "us-east", more, signed_counts)).status_code == 200
    metrics = (await west.get("/metrics")).text
    assert 'tidegate_peer_messages_refused_total{reason="implausible_cell"} 1.0' in metrics


async def test_what_peers_tell_of_a_client_is_merged_by_the_client_s_own_figures(regions):
    """64 times the plan's limit would not explain what it took, and another rule would count its bucket anew."""
    await regions.take("us-east", 10_000, key="tg_big")
    await regions.settles("eu-west", 10_000, of=OF_BIG, key="tg_big")
    await regions.take("eu-west", 9_000, key="tg_big")
    await regions.settles("us-east", 19_000, of=OF_BIG, key="tg_big")
    await regions.settles("eu-west", 19_000, of=OF_BIG, key="tg_big")


async def test_a_peer_that_was_never_heard_is_told_of(tmp_path, valkey_url):
    config = [
        Plan(plan="p", limits=LIMITS),
        Region(region="us-east"),
        Region(region="eu-west", peer_url=NOWHERE, public_key=region_public_key(CREDENTIALS["eu-west"])),
    ]
    async with (
        agent_beside(tmp_path, valkey_url, config) as (agent, _),
        node_client(tmp_path, valkey_url, config) as node,
        asyncio.timeout(15),
    ):
        never = {"last_heard_s": None, "staleness_s": None, "silent": True}
        while agent.status()["peers"] != {"eu-west": never}:
            await asyncio.sleep(0.02)
        metrics = agent.metrics().body.decode()
        while (await node.get("/v1/status")).json()["peers"] != {"eu-west": {"staleness_s": None, "silent": True}}:
            await asyncio.sleep(0.02)
    assert 'tidegate_peer_staleness_seconds{peer="eu-west"} +Inf' in metrics
    assert 'tidegate_peer_silent{peer="eu-west"} 1.0' in metrics
