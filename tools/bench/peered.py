"""A second region beside the node under test: the same configuration with a peer, and where each is reached."""

import asyncio
import hashlib
from pathlib import Path
from typing import NamedTuple

from tidegate.contract.config import Region
from tidegate.contract.credentials import make_credential, region_public_key
from tidegate.stack.ports import LOOPBACK, free_ports
from tools.bench.snapshot import write_snapshot
from tools.bench.workload import REGION, config_changes

PEER = "elsewhere"


class Peered(NamedTuple):
    """The snapshot that all start from, its key, and the ports of the node under test and of both regions' agents."""

    snapshot: Path
    public_key: str
    port: int
    agent_port: int
    peer_port: int


def credential_of(region: str) -> str:
    """A region's credential, the same in every run: it protects nothing here."""
    return make_credential("region", hashlib.sha256(region.encode()).digest())


def prepare(directory: Path) -> Peered:
    """Choose ports and write the snapshot."""
    node_port, *agents = free_ports(3)
    ports = dict(zip((REGION, PEER), agents, strict=True))
    regions = [
        Region(
            region=region, peer_url=f"http://{LOOPBACK}:{port}", public_key=region_public_key(credential_of(region))
        )
        for region, port in ports.items()
    ]  # fmt: skip
    snapshot = directory / "peered-snapshot"
    public_key = asyncio.run(write_snapshot(snapshot, config_changes(regions)))
    return Peered(snapshot, public_key, node_port, ports[REGION], ports[PEER])
