"""Following the load: every node applies the shared factors; one agent of the region decides and shares them.

Without the store nobody decides: the last factors are held for a while, then given up step by step, but for an
operator's.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

import msgspec
import structlog

from data_plane.config.load_classes import FULL
from data_plane.config.rulebook import Rulebook
from data_plane.load.controller import ControlState
from data_plane.load.decision import MILLI, decide, is_manual
from data_plane.load.gates import Gates
from data_plane.load.ports import (
    ControlPlaneSilentError,
    FactorStore,
    LoadReporting,
    LoadServers,
    PullError,
)
from data_plane.load.reports import LoadReports
from data_plane.load.shared import BackendFactors, NodeDemand, SaidEntry, SharedFactors, entry_of, explained
from data_plane.load.signals import Said
from data_plane.store.ports import Clock, StoreUnavailableError
from tidegate.contract.decoding import UNREADABLE
from tidegate.contract.load import AdaptivePolicy, Backend, BackendLoad, RegionLoad

log = structlog.get_logger()
FOLLOW_EVERY_S = 0.25
DECIDE_EVERY_S = 1.0
PULL_EVERY_S = 2.0
REPORT_EVERY_S = 5.0
HELD_WITHOUT_NEWS_S = 15.0
RELAXED_BY = FULL // 20
"""How much is given back a second once there was no news for so long."""
DEMAND_COUNTS_FOR_US = 3_000_000
FORGOTTEN_AFTER_US = 600_000_000
MOST_PULLS_AT_ONCE = 8

_shared_decoder = msgspec.json.Decoder(SharedFactors)
_demand_decoder = msgspec.json.Decoder(NodeDemand)
_said_decoder = msgspec.json.Decoder(SaidEntry)


def loads_of(shared: SharedFactors) -> Sequence[BackendLoad]:
    """Why every factor is what it is."""
    return [explained(one, shared.at_us, shared.node) for one in shared.backends]


class LoadFollower:
    """Applies what was decided, tells what is asked for, and pins what was reported here."""

    def __init__(
        self, node: str, board: FactorStore, gates: Gates, reports: LoadReports, clock: Clock,
        book: Callable[[], Rulebook],
    ) -> None:  # fmt: skip
        self._node = node
        self._board = board
        self._gates = gates
        self._reports = reports
        self._clock = clock
        self._book = book
        self._told: Mapping[tuple[str, int], int] = {}
        self._told_at_us = 0
        self._heard_at_us = 0
        self._news_at_us = 0
        self.shared = SharedFactors(at_us=0, node="")
        """What is applied."""

    async def run(self) -> None:
        """Follow, for ever."""
        while True:
            await self.follow()
            await asyncio.sleep(FOLLOW_EVERY_S)

    async def follow(self) -> None:
        """One look; while no backend is protected the store is left alone."""
        now_us = self._clock.now_us()
        # where the clock was set back, what was last done then is not to be waited for
        self._heard_at_us, self._news_at_us = min(self._heard_at_us, now_us), min(self._news_at_us, now_us)
        heard = None
        if now_us - self._heard_at_us >= DECIDE_EVERY_S * 1_000_000:
            heard, self._heard_at_us = self._reports.drain(now_us), now_us
        if not self._book().protected and not self.shared.backends:
            return
        try:
            body = await self._board.read()
            self._take(body, now_us)
            if heard is not None:
                await self._board.pin(heard)
                await self._tell_demand(now_us)
        except StoreUnavailableError:
            self._without_news(now_us)

    def _take(self, body: bytes | None, now_us: int) -> None:
        if body is not None:
            try:
                shared = _shared_decoder.decode(body)
            except UNREADABLE as error:  # of another version: held, as if there were none
                log.warning("shared_factors_not_understood", error=str(error))
                shared = self.shared
            if shared.at_us != self.shared.at_us:
                self.shared, self._news_at_us = shared, now_us
        known = self._book().protected
        factors = [one for one in self.shared.backends if one.backend in known]
        if len(factors) != len(self.shared.backends):
            self.shared = msgspec.structs.replace(self.shared, backends=tuple(factors))
        if now_us - self._news_at_us > HELD_WITHOUT_NEWS_S * 1_000_000 and self.shared.backends:
            self._without_news(now_us)
        else:
            self._gates.apply(factors, now_us)

    def _without_news(self, now_us: int) -> None:
        if now_us - self._news_at_us > HELD_WITHOUT_NEWS_S * 1_000_000:
            by_hand = [name for name, (backend, _) in self._book().protected.items() if is_manual(backend, now_us)]
            self._gates.relax(round(RELAXED_BY * FOLLOW_EVERY_S), now_us, by_hand)

    async def _tell_demand(self, now_us: int) -> None:
        own = self._gates.own()
        # what a client's own limits deny never reaches the backend: counted, it would take the place of what does
        wanted = {name: units - own[name] for name, units in self._gates.offered().items()}
        past_s = (now_us - self._told_at_us) / 1_000_000
        backends: dict[str, dict[int, int]] = {}
        if self._told_at_us and 0 < past_s < 10 * DECIDE_EVERY_S:
            for (backend, priority), units in wanted.items():
                asked = max(0, units - self._told.get((backend, priority), 0))  # a denial may be a tick late
                backends.setdefault(backend, {})[priority] = round(asked * MILLI / past_s)
        self._told, self._told_at_us = wanted, now_us
        await self._board.tell_demand(self._node, msgspec.json.encode(NodeDemand(at_us=now_us, backends=backends)))


class LoadDecider:
    """Decides for the region while it holds the lease; takes over within three seconds when who did is gone."""

    def __init__(
        self, node: str, board: FactorStore, reports: LoadReports, servers: LoadServers,
        reporting: LoadReporting, clock: Clock, book: Callable[[], Rulebook],
    ) -> None:  # fmt: skip
        self._node = node
        self._board = board
        self._reports = reports
        self._servers = servers
        self._reporting = reporting
        self._clock = clock
        self._book = book
        self.deciding = False
        self.pull_failures: dict[str, int] = {}
        self._shared = SharedFactors(at_us=0, node="")
        """What it shared last."""

    async def run(self) -> None:
        """Decide, for ever, whenever it is this agent's turn."""
        while True:
            began_us = self._clock.now_us()
            await self.decide()
            took_s = (self._clock.now_us() - began_us) / 1_000_000  # below 0 when the clock is set back meanwhile
            await asyncio.sleep(min(DECIDE_EVERY_S, max(0.05, DECIDE_EVERY_S - took_s)))

    async def run_pulls(self) -> None:
        """Ask the servers, for ever, whenever it is this agent's turn."""
        while True:
            if self.deciding:
                await self.pull()
            await asyncio.sleep(PULL_EVERY_S)

    async def run_reports(self) -> None:
        """Report to the control plane, for ever, whenever it is this agent's turn: at changes, and now and then."""
        told: tuple[object, ...] | None = None
        last_us = 0
        while True:
            loads = self.loads()
            news = tuple((one.backend, one.factor, one.reason, one.signal) for one in loads)
            due = not 0 <= self._clock.now_us() - last_us < REPORT_EVERY_S * 1_000_000
            if self.deciding and loads and (news != told or due):
                try:
                    await self._reporting.report(RegionLoad(node=self._node, backends=tuple(loads)))
                    told, last_us = news, self._clock.now_us()
                except ControlPlaneSilentError as error:
                    log.debug("load_not_reported", reason=str(error))
            await asyncio.sleep(DECIDE_EVERY_S)

    def loads(self) -> Sequence[BackendLoad]:
        """Why every factor is what it is; nothing while another agent decides."""
        return loads_of(self._shared) if self.deciding else []

    async def hand_over(self) -> None:
        """Let another agent decide at once."""
        if self.deciding:
            self.deciding = False
            with contextlib.suppress(StoreUnavailableError):
                await self._board.release_lease()

    async def decide(self) -> None:
        """One tick, if it is this agent's turn and there is something to protect."""
        protected = self._book().protected
        if not protected:
            self.deciding = False
            return
        try:
            self.deciding = await self._board.hold_lease()
            if self.deciding:
                await self._decide(protected)
        except StoreUnavailableError:
            self.deciding = False

    async def _decide(self, protected: Mapping[str, tuple[Backend, AdaptivePolicy]]) -> None:
        now_us = self._clock.now_us()
        before = await self._before()
        demand = await self._demand(now_us)
        priorities = self._book().priorities
        entries = []
        for name, (backend, policy) in protected.items():
            said = await self._said(name, now_us)
            last = before.get(name)
            asked = dict.fromkeys(priorities, 0) | demand.get(name, {})
            state = ControlState() if last is None else last.state
            decided = decide(backend, policy, state, said, {} if last is None else last.demand, asked, now_us)
            entries.append(entry_of(name, policy.policy, policy.floor, policy.reserve, decided))
            if last is None or decided.state.factor != last.state.factor:
                log.info(
                    "load_factor", backend=name, factor=decided.state.factor, reason=decided.state.reason,
                    signal=decided.state.signal, load=decided.state.smoothed,
                )  # fmt: skip
        shared = SharedFactors(at_us=now_us, node=self._node, backends=tuple(entries))
        self._shared = shared
        self.deciding = await self._board.publish(msgspec.json.encode(shared))

    async def pull(self) -> None:
        """Ask for every signal that the configuration names a query for."""
        wanted = [
            (name, pull.server, pull.signal, pull.query)
            for name, (backend, _) in self._book().protected.items()
            for pull in backend.pulls
        ]
        turn = asyncio.Semaphore(MOST_PULLS_AT_ONCE)

        async def one(name: str, server: str, signal: str, query: str) -> None:
            async with turn:
                try:
                    value = await self._servers.ask(server, query)
                except PullError as error:
                    self.pull_failures[error.reason] = self.pull_failures.get(error.reason, 0) + 1
                else:
                    self._reports.take_pulled(server, name, signal, value, self._clock.now_us())

        await asyncio.gather(*(one(*each) for each in wanted))
        with contextlib.suppress(StoreUnavailableError):  # the next answers come soon
            await self._board.pin(self._reports.drain(self._clock.now_us()))

    async def _before(self) -> Mapping[str, BackendFactors]:
        """Where whoever decided last left off: in the store, because that may have been another node."""
        body = await self._board.read()
        if body is None:
            return {}
        try:
            return {one.backend: one for one in _shared_decoder.decode(body).backends}
        except UNREADABLE:
            return {}

    async def _demand(self, now_us: int) -> Mapping[str, dict[int, int]]:
        """What all nodes together were asked for in the last second."""
        total: dict[str, dict[int, int]] = {}
        gone = []
        for node, body in (await self._board.demands()).items():
            try:
                told = _demand_decoder.decode(body)
            except UNREADABLE:
                gone.append(node)
                continue
            if now_us - told.at_us > FORGOTTEN_AFTER_US:
                gone.append(node)
            if now_us - told.at_us > DEMAND_COUNTS_FOR_US:
                continue
            for backend, by_priority in told.backends.items():
                into = total.setdefault(backend, {})
                for priority, units in by_priority.items():
                    into[priority] = into.get(priority, 0) + units
        await self._board.drop_demands(gone)
        return total

    async def _said(self, backend: str, now_us: int) -> list[Said]:
        said, gone = [], []
        for name, body in (await self._board.pinned(backend)).items():
            try:
                entry = _said_decoder.decode(body)
            except UNREADABLE:
                gone.append(name)
                continue
            if now_us - entry.at_us > FORGOTTEN_AFTER_US:
                gone.append(name)
            else:
                said.append(entry.said())
        await self._board.unpin(backend, gone)
        return said
