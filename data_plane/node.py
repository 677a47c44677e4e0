"""One node, wired: every adapter is made here and handed to the services that need it."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import Response
from prometheus_client.core import Metric

from data_plane.config.index import RuleIndex
from data_plane.config.stream import Decided
from data_plane.configuration import Configuration
from data_plane.decide.check_resolution import Anonymous
from data_plane.decide.decider import Decider
from data_plane.decide.decision_tally import Tally
from data_plane.decide.denial_cache import DenialCache
from data_plane.decide.enforcement_ends import OverrideKeeper, overrides_and_blocks
from data_plane.decide.settlement import Settlement
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
from data_plane.metrics.exposition import CONTENT_TYPE
from data_plane.metrics.families import of_agents, of_holds
from data_plane.observability import Observability
from data_plane.process import Job, SystemClock, working
from data_plane.region_view import RegionView, epoch_join
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
        joined = epoch_join(settings)
        self.store = RedisCounterStore(settings.store_settings(), join=joined)
        self.region_view = RegionView(settings, clock, self._index_in_force, self.store, joined)
        bounds = SubjectBounds()
        self._membership = NodeMembership(
            settings.node, RedisNodeRegister(self.store), RedisNodeRegister(self.store, AGENTS), clock, bounds
        )
        host = ScriptHost()
        fallback = StoreFallback(
            LocalCounters(host, MAX_LOCAL_KEYS), LocalCounters(host, MAX_LOCAL_KEYS), self._membership.live_nodes,
            asyncio.get_running_loop().call_soon, clock.now_us,
        )  # fmt: skip
        self.settlement = Settlement(fallback.debts, self.store, clock, self._index_in_force, secrets.token_bytes)
        # On a Cluster counts may be given back a moment later, so a denial may not last.
        denial_cache = None if settings.redis_shape == "cluster" else DenialCache(MAX_DENIALS)
        anonymous = Anonymous(settings.missing_key == "anonymous", settings.unknown_key == "anonymous")
        self.usage = NodeUsage(settings, self.store, clock, secrets.token_hex(8))
        self._load_control = NodeLoadControl(settings, self.store, clock, lambda: self.decider.index.book)
        self.observability = Observability(settings, clock, self._tally, self.store)
        self.decider = Decider(
            RuleIndex.empty(settings.region), self.store, clock, fallback, self._tally,
            anonymous, denial_cache, bounds, self._load_control.gates, self.region_view.reader,
            (self.usage.tally, *self.observability.observers), self.observability.denial_log,
        )  # fmt: skip
        self.load_handler = self._load_control.handler
        self._overrides = OverrideKeeper(self.decider, clock)
        self.configuration = Configuration(
            settings, "node", self.store, clock,
            (self.region_view.applied, self.decider.applied, self._overrides.applied), self._decided, _as_it_is,
        )  # fmt: skip
        self.handler = DecisionHandler(
            self.decider, Renderer(settings.region, settings.reset_format), _id_prefix(settings.node),
            trust=settings.trust, dialect=settings.dialect,
            key_sources=settings.key_sources, trusted_hops=settings.trusted_hops,
        )  # fmt: skip
        self._holds = Holds(
            self._index_in_force, anonymous, bounds, self.store, RedisHoldStore(self.store), clock,
            HoldSigner(settings.region_credential.get_secret_value(), self.region_view.own_public_keys),
            secrets.token_bytes, self.region_view.reader, self.usage.tally,
        )  # fmt: skip
        self.hold_handler = HoldHandler(
            self._holds, Renderer(settings.region, settings.reset_format), clock, _id_prefix(settings.node),
            trust=settings.trust, index=self._index_in_force, revision=lambda: self.decider.revision,
            denials=self.observability.denial_log,
        )  # fmt: skip
        repeated = RepeatedDenials(
            self._index_in_force, lambda: self.decider.revision, anonymous, bounds, clock, self.usage.tally,
            self.observability.denial_log,
        )  # fmt: skip
        self.denial_reports = DenialReports(repeated, clock, settings.trust, self._index_in_force)
        self.me = MeHandler(
            self._index_in_force, self.store, clock, _id_prefix(settings.node),
            trust=settings.trust, key_sources=settings.key_sources, origins=settings.cors_origins,
        )  # fmt: skip
        self.observability.add(
            self.configuration.families, partial(of_holds, self._holds.tally), self.region_view.families,
            self.usage.families, self._load_control.families, self._of_agents,
        )  # fmt: skip

    def _decided(self) -> Decided:
        tally = self._tally
        return Decided(tally.allowed + tally.denied, tally.denied, tally.degraded)

    def _index_in_force(self) -> RuleIndex:
        return self.decider.index

    def _of_agents(self) -> Iterator[Metric]:
        return of_agents(self._live_agents())

    def _live_agents(self) -> int:
        return self._membership.live_agents

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the node between enter and exit: connect the store and run the background work."""
        self.configuration.restore()
        work: list[Job] = [
            *self.configuration.work(), self._membership.run, *self.region_view.work(), self.settlement.run,
            self._overrides.run, *self.usage.work(), *self._load_control.work(), *self.observability.work(),
        ]  # fmt: skip
        ends = (
            self.configuration.stop, self.usage.stop, self.observability.stop, self._membership.leave, self.store.close,
        )  # fmt: skip
        async with working(self.store.start, work, ends):
            yield

    def status(self) -> dict[str, Any]:
        """The body of ``/v1/status``."""
        return {
            "node": self.settings.node,
            "region": self.settings.region,
            "version": version("tidegate"),
            **self.configuration.status(),
            "store": asdict(self.store.status()),
            **self.region_view.status(),
            "live_nodes": self._membership.live_nodes(),
            "live_agents": self._live_agents(),
            **overrides_and_blocks(self.decider.index, self._clock.now_us()),
            **self._load_control.status(),
            "trust": self.settings.trust,
        }

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether the node should get requests, and the body of ``/readyz``.

        A node stays ready while its store is unavailable: it decides without the store, and if all nodes of a region
        became unready at once, that would be an outage. A store that was never reached may have a wrong address. A
        node that starts waits some seconds for proven shares, as strict limits are denied before.
        """
        missing = ["config"] if not self.configuration.revision else []
        if not (self.store.stats.connects or self.settings.ready_without_store):
            missing.append("store")
        if self.region_view.waits_for_proof:
            missing.append("shares")
        is_ready = not (missing or self.draining)
        body = {
            "ready": is_ready,
            "revision": self.configuration.revision,
            "degraded": not self.store.status().usable,
            "agents": self._live_agents(),
        }
        return is_ready, body if is_ready else {**body, "draining": self.draining, "missing": missing}

    def metrics(self) -> Response:
        """The answer of ``/metrics``."""
        return Response(self.observability.metrics.render(), media_type=CONTENT_TYPE)


async def _as_it_is(ack: Ack) -> Ack:
    """A node's ACK as it is; agents add from when on older shares are out of use."""
    return ack


def _id_prefix(node: str) -> str:
    """The beginning of this process's request ids; a counter follows."""
    return f"{node}-{secrets.token_hex(4)}-"
