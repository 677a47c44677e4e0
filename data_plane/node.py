"""One node, wired: every adapter is made here and handed to the services that need it."""

import asyncio
import contextlib
import gc
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from fastapi import Response

from data_plane.adapters.clock import SystemClock
from data_plane.adapters.control_plane import ControlPlaneStream, Decided
from data_plane.adapters.peers import tls_of
from data_plane.adapters.redis.settings import RedisSettings
from data_plane.adapters.redis.store import RedisCounterStore
from data_plane.adapters.redis_accounts import RedisAccounts
from data_plane.adapters.redis_holds import RedisHoldStore
from data_plane.adapters.redis_register import RedisNodeRegister
from data_plane.adapters.redis_survey import RedisSurvey
from data_plane.adapters.snapshot_file import SnapshotFile, UnreadableSnapshotError
from data_plane.api.door import Door
from data_plane.api.hold_door import HoldDoor
from data_plane.api.metrics import CONTENT_TYPE
from data_plane.api.node_metrics import of_holds
from data_plane.api.render import Renderer
from data_plane.domain.check import Anonymous
from data_plane.domain.denials import DenialMemory
from data_plane.domain.index import InvalidConfigError, RuleIndex
from data_plane.domain.seals import Seals
from data_plane.domain.subject_bounds import SubjectBounds
from data_plane.observing import Observing
from data_plane.peering import Peering
from data_plane.protecting import Protecting
from data_plane.reporting import Reporting
from data_plane.services.background import kept_up
from data_plane.services.census import Census
from data_plane.services.config import ConfigService, Snapshot
from data_plane.services.decide import Decider
from data_plane.services.holds import Holds
from data_plane.services.membership import Membership
from data_plane.services.settlement import Settlement
from data_plane.services.store_fallback import StoreFallback
from data_plane.services.switches import SwitchKeeper, switches_and_blocks
from data_plane.services.tally import Tally
from data_plane.settings import Settings
from data_plane.store.local_counters import LocalCounters
from data_plane.store.script_host import ScriptHost

log = structlog.get_logger()
MAX_LOCAL_KEYS = 100_000
MAX_DENIALS = 50_000


class Node:
    """The parts of one node, wired. Make it on the event loop."""

    def __init__(self, settings: Settings) -> None:
        clock = SystemClock()
        self.draining = False
        """Set when it was asked to stop: it answers on, but is not ready any more."""
        self.settings = settings
        self._clock = clock
        self._tally = Tally()
        self._peering = Peering(settings, clock, self._index_in_force, lambda: self._config.revision)
        self._store = RedisCounterStore(redis_settings(settings), join=self._peering.join)
        bounds = SubjectBounds()
        self._membership = Membership(settings.node, RedisNodeRegister(self._store), clock, bounds)
        self._peering.connect(self._store, self._membership.live_nodes)
        host = ScriptHost()
        self._fallback = StoreFallback(
            LocalCounters(host, MAX_LOCAL_KEYS), LocalCounters(host, MAX_LOCAL_KEYS), self._membership,
            asyncio.get_running_loop().call_soon, clock.now_us,
        )  # fmt: skip
        accounts = RedisAccounts(self._store)
        self._settlement = Settlement(
            self._fallback, accounts, clock, lambda: self._store.status().usable, secrets.token_bytes
        )
        # On a Cluster a decision's counts may be given back a moment later: a denial seen in between proves nothing.
        memory = None if settings.redis_shape == "cluster" else DenialMemory(MAX_DENIALS)
        anonymous = Anonymous(settings.missing_key == "anonymous", settings.unknown_key == "anonymous")
        self._decider = Decider(
            RuleIndex.empty(settings.region), self._store, clock, self._fallback, self._tally,
            anonymous, memory, bounds, self._peering.desk,
        )  # fmt: skip
        self._reporting = Reporting(settings, self._store, clock, self._decider, secrets.token_hex(8))
        self._protecting = Protecting(settings, self._store, clock, lambda: self._decider.index.book)
        self._decider.gates = self._protecting.gates
        self.load_door = self._protecting.door
        self._switches = SwitchKeeper(self._decider, clock)
        self._census = Census(RedisSurvey(self._store))
        self._snapshots = SnapshotFile(settings.snapshot_file)
        public_key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(settings.control_plane_public_key))
        self._config = ConfigService(settings.node, settings.region, public_key, self._applied)
        self._stream = ControlPlaneStream(
            settings.control_plane_url, settings.region_credential.get_secret_value(),
            settings.node, settings.region, version("tidegate"), self._config, self._decided,
            self._peering.standings.confirmed, tls_of(settings.control_plane_ca_file, None, None),
        )  # fmt: skip
        self.peer_door = self._peering.door
        self.door = Door(
            self._decider, Renderer(settings.region, settings.reset_format), _id_prefix(settings.node),
            trust=settings.trust, dialect=settings.dialect,
            key_sources=settings.key_sources, trusted_hops=settings.trusted_hops,
        )  # fmt: skip
        self._holds = Holds(
            self._index_in_force, anonymous, bounds, self._store, RedisHoldStore(self._store), clock,
            Seals(settings.region_credential.get_secret_value(), self._peering.own_public_keys), secrets.token_bytes,
            self._peering.desk,
        )  # fmt: skip
        self._holds.usage = self._reporting.tally
        self.hold_door = HoldDoor(
            self._holds, Renderer(settings.region, settings.reset_format), clock, _id_prefix(settings.node),
            trust=settings.trust, index=self._index_in_force, revision=lambda: self._decider.revision,
        )  # fmt: skip
        self._observing = Observing(
            settings, clock, self._decider, self._store, self._census, self._config, self._stream.link, self._snapshots
        )
        self._observing.add(
            of_holds(self._holds.tally), self._peering.families, self._reporting.families, self._protecting.families
        )

    @property
    def decider(self) -> Decider:
        """What decides, for doors that are made outside."""
        return self._decider

    def _decided(self) -> Decided:
        tally = self._tally
        return Decided(tally.allowed + tally.denied, tally.denied, tally.degraded)

    def _index_in_force(self) -> RuleIndex:
        return self._decider.index

    def _applied(self, index: RuleIndex, snapshot: Snapshot) -> None:
        self._peering.standings.applied(index, snapshot.revision)
        self._decider.apply(self._switches.without_ended(index), snapshot.revision)
        if not self._observing.applied_at_us:
            gc.collect()  # before anybody waits for a decision: what is frozen with garbage in it stays
        self._observing.applied_at_us = self._clock.now_us()
        self._snapshots.save_soon(snapshot)
        # A configuration of 100,000 clients lives long: walking it would stop decisions for 0.1 s every now and then.
        gc.freeze()
        log.info("revision_applied", revision=snapshot.revision, digest=snapshot.config.digest)

    def restore(self) -> None:
        """Start from the snapshot file, if there is a good one."""
        try:
            snapshot = self._snapshots.load()
            if snapshot is not None:
                self._config.restore(snapshot)
        except (UnreadableSnapshotError, InvalidConfigError) as error:
            log.error("snapshot_ignored", error=str(error))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve between enter and exit: the store is connected, the background work goes on."""
        self.restore()
        work: list[Callable[[], Coroutine[Any, Any, None]]] = [
            self._stream.run, self._stream.report, self._snapshots.run, self._membership.run,
            *self._peering.work(self._stream.say_soon), self._settlement.run, self._switches.run,
            *self._reporting.work(), *self._protecting.work(), *self._observing.work(),
        ]  # fmt: skip
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._store.start()
            tasks += [asyncio.create_task(kept_up(job)) for job in work]
            yield
        finally:
            await _cancel(tasks)
            await self._snapshots.flush()
            await self._reporting.stop()
            await self._protecting.stop()
            await self._observing.stop()
            await self._peering.stop()
            await self._store.close()

    def status(self) -> dict[str, Any]:
        """The body of ``/v1/status``."""
        now_us = self._clock.now_us()
        refused = self._config.refused
        return {
            "node": self.settings.node,
            "region": self.settings.region,
            "version": version("tidegate"),
            "revision": self._config.revision,
            "digest": self._config.digest,
            "config_age_s": self._observing.config_age_s(),
            "refused_revision": None if refused is None else {"revision": refused.revision, "error": refused.error},
            "control_plane": asdict(self._stream.link),
            "store": asdict(self._store.status()),
            **self._peering.status(),
            "live_nodes": self._membership.live_nodes(),
            **switches_and_blocks(self._decider.index, now_us),
            **self._protecting.status(),
            "trust": self.settings.trust,
        }

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether it should be sent requests, and the body of ``/readyz``.

        A store that was there and is away does not matter: decisions go on without it, and all nodes of a region that
        turned unready at once would be an outage. One that was never there may be a wrong address.
        """
        missing = ["config"] if not self._config.revision else []
        if not (self._store.stats.connects or self.settings.ready_without_store):
            missing.append("store")
        is_ready = not (missing or self.draining)
        body = {
            "ready": is_ready,
            "revision": self._config.revision,
            "degraded": not self._store.status().usable,
        }
        return is_ready, body if is_ready else {**body, "draining": self.draining, "missing": missing}

    def metrics(self) -> Response:
        """The answer of ``/metrics``."""
        return Response(self._observing.metrics.render(), media_type=CONTENT_TYPE)


def redis_settings(settings: Settings) -> RedisSettings:
    """The store's part of the settings, as its adapter takes it."""
    password = settings.redis_sentinel_password
    return RedisSettings(
        url=settings.redis_url.get_secret_value(),
        shape=settings.redis_shape,
        sentinels=tuple(_address(text) for text in settings.redis_sentinels),
        master_name=settings.redis_master_name,
        sentinel_username=settings.redis_sentinel_username,
        sentinel_password=password.get_secret_value() if password is not None else None,
        cluster_nodes=tuple(_address(text) for text in settings.redis_cluster_nodes),
        tls_ca_file=settings.redis_ca_file,
        tls_cert_file=settings.redis_cert_file,
        tls_key_file=settings.redis_key_file,
        deadline_ms=settings.redis_deadline_ms,
    )


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    """End background work. Asked again until it ends: ``wait_for`` of Python 3.11 can swallow a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.5)


def _id_prefix(node: str) -> str:
    """What request ids of this process begin with; a counter follows."""
    return f"{node}-{secrets.token_hex(4)}-"
