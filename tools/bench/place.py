"""Where a benchmark runs: its directory, its cores, its store, the files that the variants and generators read."""

import asyncio
import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tidegate.stack.child import wait_until_ready
from tidegate.stack.ports import free_ports
from tidegate.stack.store import StoreServer, valkey_binary
from tools.bench.machine import Cores, bound_to, favour, pick_cores
from tools.bench.peered import Peered
from tools.bench.peered import prepare as prepare_peered
from tools.bench.snapshot import write_snapshot
from tools.bench.workload import BATCH, LIMITS, write_bodies, write_subrequests

READY_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Place:
    """What one benchmark shares between its variants."""

    directory: Path
    cores: Cores
    store: StoreServer
    snapshot: Path
    public_key: str
    bodies: dict[tuple[str, int], Path]
    """Request bodies by plan and checks a request."""
    peered: Peered
    subrequests: Path
    """What a gateway asks by forward-auth for clients of the first plan."""


@contextlib.contextmanager
def prepared_place() -> Iterator[Place]:
    """A temporary directory with everything in it, and a running Valkey; all of it is gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="tidegate-bench-"))
    try:
        cores = pick_cores()
        with running_store(directory / "valkey", cores.load, "Valkey", valkey_binary()) as store:
            snapshot = directory / "snapshot"
            yield Place(
                directory=directory,
                cores=cores,
                store=store,
                snapshot=snapshot,
                public_key=asyncio.run(write_snapshot(snapshot)),
                bodies={(plan, size): write_bodies(directory, plan, size) for plan in LIMITS for size in (1, BATCH)},
                peered=prepare_peered(directory),
                subrequests=write_subrequests(directory, "one"),
            )
    finally:
        shutil.rmtree(directory)


@contextlib.contextmanager
def running_store(directory: Path, core: int, name: str, binary: Path) -> Iterator[StoreServer]:
    """A store of our own, in memory only, bound to a core."""
    store = StoreServer(
        directory, port=free_ports(1)[0], password=secrets.token_hex(16), log_path=directory.with_suffix(".log"),
        name=name, binary=binary,
    )  # fmt: skip
    store.prepare()
    with bound_to(core):
        store.child.start()
        favour(store.child.pid)
    try:
        wait_until_ready(store.child, store.is_ready, timeout_s=READY_TIMEOUT_S)
        yield store
    finally:
        store.child.stop()
