"""The signed configuration in a file: a node starts from it as it does when the control plane is away."""

from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_plane.config.index import ConfigSet
from data_plane.config.snapshots import SnapshotFile
from data_plane.config.stream import Snapshot
from tidegate.contract.config import Change, signed_head
from tools.bench.workload import config_changes

REVISION = 1


async def write_snapshot(path: Path, changes: Iterable[Change] | None = None) -> str:
    """Write the snapshot (the workload's, or of ``changes``), signed with a key made for this run; returns the public
    key (hex).
    """
    signing_key = Ed25519PrivateKey.generate()
    config = ConfigSet.empty().with_changes(config_changes() if changes is None else changes)
    signature = signing_key.sign(signed_head(REVISION, config.digest)).hex()
    file = SnapshotFile(path)
    file.save_soon(Snapshot(REVISION, signature, config))
    await file.flush()
    return signing_key.public_key().public_bytes_raw().hex()
