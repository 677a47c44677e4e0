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

from data_plane.config.index import RuleIndex
from data_plane.config.stream import Decided, Snapshot
from data_plane.configuration import Configuration
from data_plane.decide.check_resolution import Anonymous
from data_plane.decide.decider import Decider
from data_plane.decide.decision_tally import Tally
from data_plane.decide.denial_cache import DenialCache
from data_plane.decide.enforcement_ends import SwitchKeeper, switches_and_blocks
from data_plane.decide.settlement import RedisAccounts, Settlement
from data_plane.decide.store_fallback import StoreFallback
from data_plane.holds.redis_holds import RedisHoldStore
from data_plane.holds.service import Holds
from data_plane.holds.signatures import HoldSigner
from data_plane.http.decision_handler import DecisionHandler
from data_plane.http.denial_reports import DenialReports
from data_plane.http.hold_handler import HoldHandler
from data_plane.http.me import MeHandler
from data_plane.http.render import Renderer
from data_plane.load_control import NodeLoadControl
from data_plane.metrics.exposition import CONTENT_TYPE, gauge
from data_plane.metrics.of_nodes import of_holds
from data_plane.observability import Observability
from data_plane.process import SystemClock, cancelled, run_forever
from data_plane.region_view import RegionView
from data_plane.settings import Settings
from data_plane.store.local_counters import LocalCounters
from data_plane.store.membership import AGENTS, NodeMembership, RedisNodeRegister
from data_plane.store.redis.store import RedisCounterStore
from data_plane.store.script_host import ScriptHost
from data_plane.store.subject_bounds import SubjectBounds
from data_plane.usage.repeated_denials import RepeatedDenials
from data_plane.usage_flow import NodeUsage
from tidegate.contract.config import Ack

MAX_LOCAL_KEYS = 100_000
MAX_DENIALS = 50_000


class Node:
    """The parts of one node, wired. Make it on the event loop."""

    def __init__(self, settings: Settings) -> None:
        clock = SystemClock()
        self.draining = False
        """Set once the node is asked to stop: it still answers, and is no longer ready."""
        self.settings = settings
        self._clock = clock
        self._tally = Tally()
        self._region_view = RegionView(settings, clock, self._index_in_force)
        self._store = RedisCounterStore(settings.store_settings(), join=self._region_view.join)
        self._region_view.connect(self._store)
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
        # On a Cluster counts may be given back a moment later, so a denial may not last.
        memory = None if settings.redis_shape == "cluster" else DenialCache(MAX_DENIALS)
        anonymous = Anonymous(settings.missing_key == "anonymous", settings.unknown_key == "anonymous")
        self._decider = Decider(
            RuleIndex.empty(settings.region), self._store, clock, self._fallback, self._tally,
            anonymous, memory, bounds, self._region_view.reader,
        )  # fmt: skip
        self._usage = NodeUsage(settings, self._store, clock, self._decider, secrets.token_hex(8))
        self._load_control = NodeLoadControl(settings, self._store, clock, lambda: self._decider.index.book)
        self._decider.gates = self._load_control.gates
        self.load_handler = self._load_control.handler
        self._switches = SwitchKeeper(self._decider, clock)
        self._configuration = Configuration(
            settings, "node", self._store, clock, self._applied, self._decided, _as_it_is
        )
        self.handler = DecisionHandler(
            self._decider, Renderer(settings.region, settings.reset_format), _id_prefix(settings.node),
            trust=settings.trust, dialect=settings.dialect,
            key_sources=settings.key_sources, trusted_hops=settings.trusted_hops,
        )  # fmt: skip
        self._holds = Holds(
            self._index_in_force, anonymous, bounds, self._store, RedisHoldStore(self._store), clock,
            HoldSigner(settings.region_credential.get_secret_value(), self._region_view.own_public_keys),
            secrets.token_bytes, self._region_view.reader,
        )  # fmt: skip
        self._holds.usage = self._usage.tally
        self._observability = Observability(settings, clock, self._decider, self._store)
        self.hold_handler = HoldHandler(
            self._holds, Renderer(settings.region, settings.reset_format), clock, _id_prefix(settings.node),
            trust=settings.trust, index=self._index_in_force, revision=lambda: self._decider.revision,
            denials=self._observability.denial_log,
        )  # fmt: skip
        repeated = RepeatedDenials(
            self._index_in_force, lambda: self._decider.revision, anonymous, bounds, clock, self._usage.tally,
            self._observability.denial_log,
        )  # fmt: skip
        self.denial_reports = DenialReports(repeated, clock, settings.trust, self._index_in_force)
        self.me = MeHandler(
            self._index_in_force, self._store, clock, _id_prefix(settings.node),
            trust=settings.trust, key_sources=settings.key_sources, origins=settings.cors_origins,
        )  # fmt: skip
        self._observability.add(
            self._configuration.families, of_holds(self._holds.tally), self._region_view.families,
            self._usage.families, self._load_control.families, self._of_agents,
        )  # fmt: skip

    @property
    def decider(self) -> Decider:
        """The decider, for handlers made elsewhere."""
        return self._decider

    def _decided(self) -> Decided:
        tally = self._tally
        return Decided(tally.allowed + tally.denied, tally.denied, tally.degraded)

    def _index_in_force(self) -> RuleIndex:
        return self._decider.index

    def _applied(self, index: RuleIndex, snapshot: Snapshot) -> None:
        self._region_view.state.apply(index, snapshot.revision)
        self._decider.apply(self._switches.without_ended_overrides(index), snapshot.whole_revision)

    def _of_agents(self) -> Iterator[Metric]:
        yield gauge("tidegate_region_agents", "Live agents of this region, as this node sees them", self._live_agents())

    def _live_agents(self) -> int:
        return self._membership.live_agents

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the node between enter and exit: connect the store and run the background work."""
        self._configuration.restore()
        work: list[Callable[[], Coroutine[Any, Any, None]]] = [
            *self._configuration.work(), self._membership.run, *self._region_view.work(), self._settlement.run,
            self._switches.run, *self._usage.work(), *self._load_control.work(), *self._observability.work(),
        ]  # fmt: skip
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._store.start()
            tasks += [asyncio.create_task(run_forever(job)) for job in work]
            yield
        finally:
            await cancelled(tasks)
            await self._configuration.stop()
            await self._usage.stop()
            await self._observability.stop()
            await self._membership.leave()
            await self._store.close()

    def status(self) -> dict[str, Any]:
        """The body of ``/v1/status``."""
        return {
            "node": self.settings.node,
            "region": self.settings.region,
            "version": version("tidegate"),
            **self._configuration.status(),
            "store": asdict(self._store.status()),
            **self._region_view.status(),
            "live_nodes": self._membership.live_nodes(),
            "live_agents": self._live_agents(),
            **switches_and_blocks(self._decider.index, self._clock.now_us()),
            **self._load_control.status(),
            "trust": self.settings.trust,
        }

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether the node should get requests, and the body of ``/readyz``.

        A node stays ready while its store is unavailable: it decides without the store, and if all nodes of a region
        became unready at once, that would be an outage. A store that was never reached may have a wrong address.
        """
        missing = ["config"] if not self._configuration.revision else []
        if not (self._store.stats.connects or self.settings.ready_without_store):
            missing.append("store")
        is_ready = not (missing or self.draining)
        body = {
            "ready": is_ready,
            "revision": self._configuration.revision,
            "degraded": not self._store.status().usable,
            "agents": self._live_agents(),
        }
        return is_ready, body if is_ready else {**body, "draining": self.draining, "missing": missing}

    def metrics(self) -> Response:
        """The answer of ``/metrics``."""
        return Response(self._observability.metrics.render(), media_type=CONTENT_TYPE)


async def _as_it_is(ack: Ack) -> Ack:
    """A node's ACK as it is; agents add from when on older shares are out of use."""
    return ack


def _id_prefix(node: str) -> str:
    """The beginning of this process's request ids; a counter follows."""
    return f"{node}-{secrets.token_hex(4)}-"
