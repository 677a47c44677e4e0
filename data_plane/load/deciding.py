"""An agent's side of adaptive limits: one agent of the region decides and publishes the factors of all backends."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec
import structlog

from data_plane.config.rulebook import Rulebook
from data_plane.load.controller import (
    BackendFactors,
    ControlState,
    NodeDemand,
    Report,
    SharedFactors,
    decide,
    explain_all,
)
from data_plane.load.following import LoadReports, RedisFactorStore
from data_plane.process import ControlPlaneUnavailableError
from data_plane.store.ports import Clock, StoreUnavailableError
from tidegate.contract.decoding import UNREADABLE
from tidegate.contract.load import AdaptivePolicy, Backend, BackendLoad, RegionLoad

log = structlog.get_logger()
DECIDE_EVERY_S = 1.0
PULL_EVERY_S = 2.0
REPORT_EVERY_S = 5.0
DEMAND_COUNTS_FOR_US = 3_000_000
FORGOTTEN_AFTER_US = 600_000_000
MAX_PULLS_AT_ONCE = 8

_shared_decoder = msgspec.json.Decoder(SharedFactors)
_demand_decoder = msgspec.json.Decoder(NodeDemand)
_report_decoder = msgspec.json.Decoder(Report)


class PullError(Exception):
    """A server gave no signal; ``reason`` is from a closed set."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LoadServers(Protocol):
    """The servers of the agent's settings, by name."""

    async def ask(self, server: str, query: str) -> float:
        """The value of a query; the lower median of several samples. Raises ``PullError``."""
        ...


class LoadReporting(Protocol):
    """The way to the control plane. Raises ``ControlPlaneUnavailableError``."""

    async def report(self, load: RegionLoad) -> None:
        """Send the loads of this region's backends."""
        ...


class LoadDecider:
    """Decides for the region while it holds the lease; takes over within three seconds when the holder is gone."""

    def __init__(
        self, node: str, factor_store: RedisFactorStore, reports: LoadReports, servers: LoadServers,
        reporting: LoadReporting, clock: Clock, book: Callable[[], Rulebook],
    ) -> None:  # fmt: skip
        self._node = node
        self._factor_store = factor_store
        self._reports = reports
        self._servers = servers
        self._reporting = reporting
        self._clock = clock
        self._book = book
        self.deciding = False
        self.pull_failures: dict[str, int] = {}
        self._shared = SharedFactors(at_us=0, node="")
        """The factors published last."""

    async def run(self) -> None:
        """Decide once a second, for ever, while this agent holds the lease."""
        while True:
            began_us = self._clock.now_us()
            await self.decide()
            took_s = (self._clock.now_us() - began_us) / 1_000_000  # negative if the clock was set back
            await asyncio.sleep(min(DECIDE_EVERY_S, max(0.05, DECIDE_EVERY_S - took_s)))

    async def run_pulls(self) -> None:
        """Pull signals from servers, for ever, while this agent holds the lease."""
        while True:
            if self.deciding:
                await self.pull()
            await asyncio.sleep(PULL_EVERY_S)

    async def run_reports(self) -> None:
        """Report loads for ever while this agent holds the lease: to the control plane, at changes and now and then."""
        reported: tuple[object, ...] | None = None
        reported_us = 0
        while True:
            loads = self.loads()
            current = tuple((load.backend, load.factor, load.reason, load.signal) for load in loads)
            due = not 0 <= self._clock.now_us() - reported_us < REPORT_EVERY_S * 1_000_000
            if self.deciding and loads and (current != reported or due):
                try:
                    await self._reporting.report(RegionLoad(node=self._node, backends=tuple(loads)))
                    reported, reported_us = current, self._clock.now_us()
                except ControlPlaneUnavailableError as error:
                    log.debug("load_not_reported", reason=str(error))
            await asyncio.sleep(DECIDE_EVERY_S)

    def loads(self) -> Sequence[BackendLoad]:
        """Every backend's factor and its reason; empty while another agent decides."""
        return explain_all(self._shared) if self.deciding else []

    async def hand_over(self) -> None:
        """Release the lease, so that another agent decides at once."""
        if self.deciding:
            self.deciding = False
            with contextlib.suppress(StoreUnavailableError):
                await self._factor_store.release_lease()

    async def decide(self) -> None:
        """Decide one tick, if this agent gets the lease and a backend is protected."""
        protected = self._book().protected
        if not protected:
            self.deciding = False
            return
        try:
            self.deciding = await self._factor_store.hold_lease()
            if self.deciding:
                await self._decide(protected)
        except StoreUnavailableError:
            self.deciding = False

    async def _decide(self, protected: Mapping[str, tuple[Backend, AdaptivePolicy]]) -> None:
        now_us = self._clock.now_us()
        before = await self._published_before()
        demand = await self._demand(now_us)
        priorities = self._book().priorities
        entries = []
        for name, (backend, policy) in protected.items():
            reports = await self._fresh_reports(name, now_us)
            last = before.get(name)
            asked = dict.fromkeys(priorities, 0) | demand.get(name, {})
            state = ControlState() if last is None else last.state
            decided = decide(backend, policy, state, reports, {} if last is None else last.demand, asked, now_us)
            entries.append(decided)
            if last is None or decided.state.factor != last.state.factor:
                log.info(
                    "load_factor", backend=name, factor=decided.state.factor, reason=decided.state.reason,
                    signal=decided.state.signal, load=decided.state.smoothed,
                )  # fmt: skip
        shared = SharedFactors(at_us=now_us, node=self._node, backends=tuple(entries))
        self._shared = shared
        self.deciding = await self._factor_store.publish(msgspec.json.encode(shared))

    async def pull(self) -> None:
        """Pull every signal for which the configuration has a query."""
        wanted = [
            (name, pull.server, pull.signal, pull.query)
            for name, (backend, _) in self._book().protected.items()
            for pull in backend.pulls
        ]
        turn = asyncio.Semaphore(MAX_PULLS_AT_ONCE)

        async def pull_one(name: str, server: str, signal: str, query: str) -> None:
            async with turn:
                try:
                    value = await self._servers.ask(server, query)
                except PullError as error:
                    self.pull_failures[error.reason] = self.pull_failures.get(error.reason, 0) + 1
                else:
                    self._reports.take_pulled(server, name, signal, value, self._clock.now_us())

        await asyncio.gather(*(pull_one(*query) for query in wanted))
        with contextlib.suppress(StoreUnavailableError):  # the next pull replaces them
            await self._factor_store.store_reports(self._reports.drain(self._clock.now_us()))

    async def _published_before(self) -> Mapping[str, BackendFactors]:
        """The factors published last, by this agent or another one, by backend."""
        body = await self._factor_store.read()
        if body is None:
            return {}
        try:
            return {factors.backend: factors for factors in _shared_decoder.decode(body).backends}
        except UNREADABLE:
            return {}

    async def _demand(self, now_us: int) -> Mapping[str, dict[int, int]]:
        """The demand of the last second on all nodes together, by backend and priority."""
        total: dict[str, dict[int, int]] = {}
        gone = []
        for node, body in (await self._factor_store.demands()).items():
            try:
                node_demand = _demand_decoder.decode(body)
            except UNREADABLE:
                gone.append(node)
                continue
            if now_us - node_demand.at_us > FORGOTTEN_AFTER_US:
                gone.append(node)
            if now_us - node_demand.at_us > DEMAND_COUNTS_FOR_US:
                continue
            for backend, by_priority in node_demand.backends.items():
                sums = total.setdefault(backend, {})
                for priority, units in by_priority.items():
                    sums[priority] = sums.get(priority, 0) + units
        await self._factor_store.drop_demands(gone)
        return total

    async def _fresh_reports(self, backend: str, now_us: int) -> list[Report]:
        """The reports on a backend; drops those that are long out of date."""
        reports, gone = [], []
        for name, body in (await self._factor_store.reports_on(backend)).items():
            try:
                entry = _report_decoder.decode(body)
            except UNREADABLE:
                gone.append(name)
                continue
            if now_us - entry.at_us > FORGOTTEN_AFTER_US:
                gone.append(name)
            else:
                reports.append(entry)
        await self._factor_store.drop_reports(backend, gone)
        return reports
