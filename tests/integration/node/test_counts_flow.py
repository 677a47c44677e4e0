"""The files of the Counts flow in ``docs/how-it-works.md`` are those that counts go through, from agent to agent."""

import asyncio
import time
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI

from data_plane.config.index import ConfigSet, RuleIndex
from data_plane.http.peer_handler import PeerFastPath, PeerHandler
from data_plane.replicate.count_store import CountStore
from data_plane.replicate.peer_session import HttpPeers, ReplicationTally
from data_plane.replicate.receiver import Receiver
from data_plane.replicate.sender import Sender
from data_plane.store.packing import encode_rule
from data_plane.store.redis.settings import RedisSettings
from data_plane.store.redis.store import RedisCounterStore
from testing.entered import files_entered
from testing.node import document_of, rule, served
from tests.integration.redis.load import ask
from tidegate.contract.config import Plan, Region
from tidegate.stack.ports import free_ports
from tools.docs.flows import steps_of

FLOOR = ("data_plane/process.py", "data_plane/store/", "data_plane/http/answers.py", "data_plane/http/caller.py")
"""What every flow passes."""
BESIDE = {"data_plane/replicate/anti_entropy.py", "data_plane/replicate/count_epochs.py"}
"""What the page names below the table: each tick looks whether a sweep or a new epoch has begun."""
LIMIT = rule(1, "hourly", 100_000, mode="shared")
PARAMS = encode_rule(LIMIT, shared=True)
KEYS = {name: Ed25519PrivateKey.generate() for name in ("us-east", "eu-west")}
PORTS = dict(zip(KEYS, free_ports(len(KEYS)), strict=True))
CONFIG = ConfigSet.empty().with_changes(
    map(
        document_of,
        [
            Plan(plan="p", limits=(LIMIT,)),
            *(
                Region(
                    region=name,
                    peer_url=f"http://127.0.0.1:{PORTS[name]}",
                    public_key=key.public_key().public_bytes_raw().hex(),
                )
                for name, key in KEYS.items()
            ),
        ],
    )
)


class WallClock:
    def now_us(self) -> int:
        return time.time_ns() // 1_000


class Agent(NamedTuple):
    """An agent's parts of the exchange of counts."""

    store: RedisCounterStore
    sender: Sender
    wire: HttpPeers
    fast_path: PeerFastPath

    async def has_marks(self) -> bool:
        """Whether a peer has yet to acknowledge something."""
        return any([await self.store.execute("ZCARD", b"tg:dirty%d" % slice) for slice in range(8)])


async def agent_of(region: str, url: str) -> Agent:
    """The parts, on a store of their own."""
    store, index, clock, tally = (
        RedisCounterStore(RedisSettings(url=url)),
        RuleIndex.of(region, CONFIG),
        WallClock(),
        ReplicationTally(),
    )
    await store.start()
    counts = CountStore(store, "agent", region.encode())
    receiver = Receiver(region, counts, clock, lambda: index, tally, lambda _: None)
    no_rights: Any = None
    handler = PeerHandler(region, KEYS[region], lambda: index, receiver, no_rights, clock)
    wire = HttpPeers(region, KEYS[region], lambda _: ())
    sender = Sender(region, counts, wire, clock, lambda: index, lambda: 1, receiver, tally)
    return Agent(store, sender, wire, PeerFastPath(handler))


async def test_counts_enter_the_files_of_the_page_and_no_others(valkey_url: str, redis_url: str) -> None:
    east, west = await agent_of("us-east", valkey_url), await agent_of("eu-west", redis_url)
    seen = []
    try:
        async with served(FastAPI(), west.fast_path, PORTS["eu-west"]):
            for _ in range(8):
                with files_entered() as files:
                    await ask(east.store, (b"{acme}1",), (PARAMS,), 1_000)
                    async with asyncio.timeout(20):
                        while await east.has_marks():
                            await east.sender.tick()
                            await asyncio.sleep(0.01)
                seen.append({file for file in files if file.startswith("data_plane/") and not file.startswith(FLOOR)})
        assert int.from_bytes((await west.store.execute("GET", b"{acme}1!"))[9:15], "little") == 8_000
    finally:
        for agent in (east, west):
            await agent.sender.stop()
            await agent.wire.close()
            await agent.store.close()
    # the first ones are those of a peer and a counter that are new
    through = set.intersection(*seen[4:])
    page = {step.file for step in steps_of("Counts") if step.file.startswith("data_plane/")}
    assert through - BESIDE == page
    assert through > BESIDE
