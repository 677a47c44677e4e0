"""The configuration of a node or an agent, wired: the stream, the snapshots, status and metrics."""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from typing import Any

import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from prometheus_client.core import Metric

from data_plane.config.index import InvalidConfigError, RuleIndex
from data_plane.config.snapshots import SnapshotFile, StoredSnapshot, UnreadableSnapshotError
from data_plane.config.stream import Applied, ConfigService, ControlPlaneStream, Decided, Snapshot
from data_plane.metrics.families import ConfigFigures, of_config
from data_plane.process import Job, tls_of
from data_plane.settings import RegionSettings
from data_plane.store.ports import Clock, StoreUnavailableError
from data_plane.store.redis.store import RedisCounterStore
from tidegate.contract.config import Ack
from tidegate.contract.status import Newest, Role

log = structlog.get_logger()
AGAIN_S = 1.0


class Configuration:
    """Keeps the configuration of a process up to date. Each of ``applied`` gets a new index, in order.

    ``decided`` returns decisions since the start; ``confirmed`` adds to an ACK what the store confirms.
    """

    def __init__(
        self, settings: RegionSettings, role: Role, store: RedisCounterStore, clock: Clock,
        applied: Sequence[Applied], decided: Callable[[], Decided],
        confirmed: Callable[[Ack], Awaitable[Ack]],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._tls = settings.control_plane_tls()
        self._applied_at_us = 0
        self._snapshots = SnapshotFile(settings.snapshot_file)
        self._stored = StoredSnapshot(store)
        self._writes = role == "agent"
        public_key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(settings.control_plane_public_key))
        self._config = ConfigService(settings.node, settings.region, public_key, *applied, self._keep)
        self.stream = ControlPlaneStream(
            settings.control_plane_url, settings.region_credential.get_secret_value(),
            settings.node, settings.region, version("tidegate"), self._config, decided, confirmed,
            tls_of(self._tls), role,
        )  # fmt: skip
        self.newest = self.stream.newest
        """Asks the control plane what should be in force here."""
        self.send_eventually = self.stream.send_eventually
        """Sends an ACK, at the latest when the control plane is reachable again."""

    @property
    def revision(self) -> int:
        """The revision in force; 0 before the first."""
        return self._config.revision

    def in_force(self) -> Newest:
        """The revision in force, with its digest."""
        return Newest(revision=self._config.revision, digest=self._config.digest)

    def work(self) -> list[Job]:
        """The background work."""
        work: list[Job] = [self.stream.run, self.stream.report, self._snapshots.run, self._start_from_store]
        work.append(partial(self._tls.keep_loaded, tls_of(self._tls)))
        return [*work, self._stored.run] if self._writes else work

    def restore(self) -> None:
        """Start from the snapshot file, if it is valid."""
        try:
            snapshot = self._snapshots.load()
            if snapshot is not None:
                self._config.restore(snapshot)
        except (UnreadableSnapshotError, InvalidConfigError) as error:
            log.error("snapshot_ignored", error=str(error))

    async def _start_from_store(self) -> None:
        """Put the region's stored snapshot in force, if it is newer than what this process has from its file."""
        while True:
            try:
                snapshot = await self._stored.load(after=self._config.revision)
                has = self._config.revision
                is_named = has > 0 and has == self._config.wanted_revision
                if snapshot is not None and snapshot.revision > has and not is_named:
                    self._config.restore(snapshot)
                    log.info("started_from_the_store", revision=snapshot.revision)
            except (UnreadableSnapshotError, InvalidConfigError) as error:
                log.error("stored_snapshot_ignored", error=str(error))
            except StoreUnavailableError as error:
                log.debug("no_snapshot_from_the_store", reason=error.reason)
            else:
                if self._config.revision:
                    return  # the stream brings newer revisions
            await asyncio.sleep(AGAIN_S)

    async def stop(self) -> None:
        """Disconnect, and write the newest snapshot, if it is not written yet."""
        await self.stream.close()
        await self._snapshots.flush()

    def status(self) -> dict[str, Any]:
        """The configuration in ``/v1/status``."""
        refused, held_back = self._config.refused, self._config.held_back
        return {
            "revision": self._config.whole_revision,
            "applied_revision": self._config.revision,
            "digest": self._config.digest,
            "held_back": None if held_back is None else msgspec.structs.asdict(held_back),
            "config_age_s": self._age_s(),
            "refused_revision": None if refused is None else {"revision": refused.revision, "error": refused.error},
            "control_plane": asdict(self.stream.state),
        }

    def families(self) -> Iterator[Metric]:
        """The metrics of the configuration."""
        return of_config(self._figures())

    def _keep(self, _index: RuleIndex, snapshot: Snapshot) -> None:
        """Save what is in force, for a start without the control plane, and keep the garbage collector off it.

        Walking 100,000 clients would stop decisions for 0.1 s.
        """
        if not self._applied_at_us:
            gc.collect()  # freeze keeps garbage, so collect it first, before any decision
        self._applied_at_us = self._clock.now_us()
        self._snapshots.save_soon(snapshot)
        if self._writes:
            self._stored.save_soon(snapshot)
        gc.freeze()
        log.info("revision_applied", revision=snapshot.revision, digest=snapshot.config.digest)

    def _age_s(self) -> float | None:
        """Time since the configuration in force was applied; ``None`` before the first."""
        return (self._clock.now_us() - self._applied_at_us) / 1_000_000 if self._applied_at_us else None

    def _figures(self) -> ConfigFigures:
        now_s, state, refused = self._clock.now_us() / 1_000_000, self.stream.state, self._config.refused
        saved_at_s = self._snapshots.saved_at_s
        return ConfigFigures(
            revision=self._config.revision,
            wanted_revision=self._config.wanted_revision,
            age_s=self._age_s(),
            refusals=self._config.refusals,
            refused_revision=None if refused is None else refused.revision,
            connected=state.connected,
            silence_s=None if state.heard_at_s is None else now_s - state.heard_at_s,
            reconnects=state.reconnects,
            snapshot_revision=self._snapshots.saved_revision,
            snapshot_age_s=None if saved_at_s is None else now_s - saved_at_s,
        )
