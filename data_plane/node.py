"""One node, wired: every adapter is made here and handed to the services that need it."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from fastapi import Response
from prometheus_client.core import Metric

from data_plane.background import cancelled, run_forever
from data_plane.clock import SystemClock
from data_plane.config.index import RuleIndex
from data_plane.config.service import Snapshot
from data_plane.config.stream import Decided
from data_plane.configuring import Configuring
from data_plane.decide.check_resolution import Anonymous
from data_plane.decide.decider import Decider
from data_plane.decide.decision_tally import Tally
from data_plane.decide.denial_cache import DenialCache
from data_plane.decide.enforcement_ends import SwitchKeeper, switches_and_blocks
from data_plane.decide.settlement import RedisAccounts, Settlement
from data_plane.decide.store_fallback import StoreFallback
from data_plane.holds.redis_holds import RedisHoldStore
from data_plane.holds.service import Holds
from data_plane.holds.signatures import Seals
from data_plane.http.decision_handler import DecisionHandler
from data_plane.http.denial_reports import DenialReports
from data_plane.http.hold_handler import HoldHandler
from data_plane.http.me import MeHandler
from data_plane.http.render import Renderer
from data_plane.metrics.exposition import CONTENT_TYPE, gauge
from data_plane.metrics.of_nodes import of_holds
from data_plane.observing import Observing
from data_plane.protecting import Protecting
from data_plane.regarding import Regarding
from data_plane.reporting import Reporting
from data_plane.settings import Settings
from data_plane.store.local_counters import LocalCounters
from data_plane.store.membership import AGENTS, NodeMembership, RedisNodeRegister
from data_plane.store.redis.store import RedisCounterStore
from data_plane.store.script_host import ScriptHost
from data_plane.store.subject_bounds import SubjectBounds
from data_plane.usage.repeated_denials import RepeatedDenials
from tidegate.contract.config import Ack

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
        self._regarding = Regarding(settings, clock, self._index_in_force)
        self._store = RedisCounterStore(settings.store_settings(), join=self._regarding.join)
        self._regarding.connect(self._store)
        bounds = SubjectBounds()
        self._membership = NodeMembership(
            settings.node, RedisNodeRegister(self._store), RedisNodeRegister(self._store, AGENTS), clock, bounds
        )
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
        memory = None if settings.redis_shape == "cluster" else DenialCache(MAX_DENIALS)
        anonymous = Anonymous(settings.missing_key == "anonymous", settings.unknown_key == "anonymous")
        self._decider = Decider(
            RuleIndex.empty(settings.region), self._store, clock, self._fallback, self._tally,
            anonymous, memory, bounds, self._regarding.reader,
        )  # fmt: skip
        self._reporting = Reporting(settings, self._store, clock, self._decider, secrets.token_hex(8))
        self._protecting = Protecting(settings, self._store, clock, lambda: self._decider.index.book)
        self._decider.gates = self._protecting.gates
        self.load_handler = self._protecting.handler
        self._switches = SwitchKeeper(self._decider, clock)
        self._configuring = Configuring(settings, "node", self._store, clock, self._applied, self._decided, _as_it_is)
        self.handler = DecisionHandler(
            self._decider, Renderer(settings.region, settings.reset_format), _id_prefix(settings.node),
            trust=settings.trust, dialect=settings.dialect,
            key_sources=settings.key_sources, trusted_hops=settings.trusted_hops,
        )  # fmt: skip
        self._holds = Holds(
            self._index_in_force, anonymous, bounds, self._store, RedisHoldStore(self._store), clock,
            Seals(settings.region_credential.get_secret_value(), self._regarding.own_public_keys), secrets.token_bytes,
            self._regarding.reader,
        )  # fmt: skip
        self._holds.usage = self._reporting.tally
        self._observing = Observing(settings, clock, self._decider, self._store)
        self.hold_handler = HoldHandler(
            self._holds, Renderer(settings.region, settings.reset_format), clock, _id_prefix(settings.node),
            trust=settings.trust, index=self._index_in_force, revision=lambda: self._decider.revision,
            denials=self._observing.denial_log,
        )  # fmt: skip
        repeated = RepeatedDenials(
            self._index_in_force, lambda: self._decider.revision, anonymous, bounds, clock, self._reporting.tally,
            self._observing.denial_log,
        )  # fmt: skip
        self.denial_reports = DenialReports(repeated, clock, settings.trust, self._index_in_force)
        self.me = MeHandler(
            self._index_in_force, self._store, clock, _id_prefix(settings.node),
            trust=settings.trust, key_sources=settings.key_sources, origins=settings.cors_origins,
        )  # fmt: skip
        self._observing.add(
            self._configuring.families, of_holds(self._holds.tally), self._regarding.families,
            self._reporting.families, self._protecting.families, self._of_agents,
        )  # fmt: skip

    @property
    def decider(self) -> Decider:
        """What decides, for handlers that are made outside."""
        return self._decider

    def _decided(self) -> Decided:
        tally = self._tally
        return Decided(tally.allowed + tally.denied, tally.denied, tally.degraded)

    def _index_in_force(self) -> RuleIndex:
        return self._decider.index

    def _applied(self, index: RuleIndex, snapshot: Snapshot) -> None:
        self._regarding.state.applied(index, snapshot.revision)
        self._decider.apply(self._switches.without_ended(index), snapshot.whole_revision)

    def _of_agents(self) -> Iterator[Metric]:
        yield gauge("tidegate_region_agents", "Live agents of this region, as this node sees them", self._live_agents())

    def _live_agents(self) -> int:
        return self._membership.live_agents

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve between enter and exit: the store is connected, the background work goes on."""
        self._configuring.restore()
        work: list[Callable[[], Coroutine[Any, Any, None]]] = [
            *self._configuring.work(), self._membership.run, *self._regarding.work(), self._settlement.run,
            self._switches.run, *self._reporting.work(), *self._protecting.work(), *self._observing.work(),
        ]  # fmt: skip
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._store.start()
            tasks += [asyncio.create_task(run_forever(job)) for job in work]
            yield
        finally:
            await cancelled(tasks)
            await self._configuring.stop()
            await self._reporting.stop()
            await self._observing.stop()
            await self._membership.leave()
            await self._store.close()

    def status(self) -> dict[str, Any]:
        """The body of ``/v1/status``."""
        return {
            "node": self.settings.node,
            "region": self.settings.region,
            "version": version("tidegate"),
            **self._configuring.status(),
            "store": asdict(self._store.status()),
            **self._regarding.status(),
            "live_nodes": self._membership.live_nodes(),
            "live_agents": self._live_agents(),
            **switches_and_blocks(self._decider.index, self._clock.now_us()),
            **self._protecting.status(),
            "trust": self.settings.trust,
        }

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether it should be sent requests, and the body of ``/readyz``.

        A store that was there and is away does not matter: decisions go on without it, and all nodes of a region that
        turned unready at once would be an outage. One that was never there may be a wrong address.
        """
        missing = ["config"] if not self._configuring.revision else []
        if not (self._store.stats.connects or self.settings.ready_without_store):
            missing.append("store")
        is_ready = not (missing or self.draining)
        body = {
            "ready": is_ready,
            "revision": self._configuring.revision,
            "degraded": not self._store.status().usable,
            "agents": self._live_agents(),
        }
        return is_ready, body if is_ready else {**body, "draining": self.draining, "missing": missing}

    def metrics(self) -> Response:
        """The answer of ``/metrics``."""
        return Response(self._observing.metrics.render(), media_type=CONTENT_TYPE)


async def _as_it_is(ack: Ack) -> Ack:
    """A node says what it applied; from when on cuts of shares hold is the agents' to say."""
    return ack


def _id_prefix(node: str) -> str:
    """What request ids of this process begin with; a counter follows."""
    return f"{node}-{secrets.token_hex(4)}-"
