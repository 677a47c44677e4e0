"""A node's side of adaptive limits: it applies the factors that an agent decided, and reports demand and load.

While the store is unavailable the last factors hold for a while; then they are raised step by step, except those that
an operator has set.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec
import structlog

from data_plane.config.load_gate import FULL, ClassGate, GatePass, hour_seed
from data_plane.config.rulebook import Rulebook
from data_plane.load.controller import MILLI, is_manual
from data_plane.load.ports import FactorStore
from data_plane.load.reports import LoadReports
from data_plane.load.shared import BackendFactors, NodeDemand, SharedFactors
from data_plane.store.ports import Clock, StoreUnavailableError
from tidegate.contract.decoding import UNREADABLE

log = structlog.get_logger()
FOLLOW_EVERY_S = 0.25
REPORT_EVERY_S = 1.0
HELD_WITHOUT_NEWS_S = 15.0
RELAXED_BY = FULL // 20
"""By how much factors are raised a second after that time without new ones."""

_shared_decoder = msgspec.json.Decoder(SharedFactors)


class Gates:
    """Gates by backend and priority; both come from the configuration."""

    def __init__(self) -> None:
        self.by_class: dict[tuple[str, int], ClassGate] = {}
        self._factors: dict[str, BackendFactors] = {}
        self._seed = 0

    def open(self, gate_pass: GatePass) -> ClassGate:
        """The gate of a pass; the pass keeps it from then on."""
        name = (gate_pass.backend, gate_pass.priority)
        gate = self.by_class.get(name)
        if gate is None:
            gate = self.by_class[name] = ClassGate()
            self._set(name, gate)
        gate_pass.gate = gate
        return gate

    def apply(self, factors: Iterable[BackendFactors], now_us: int) -> None:
        """Set the factors of all backends. A backend without factors admits everybody."""
        self._factors = {entry.backend: entry for entry in factors}
        self._seed = hour_seed(now_us)
        for name, gate in self.by_class.items():
            self._set(name, gate)

    def relax(self, step: int, now_us: int, held: Collection[str]) -> None:
        """Raise every factor by ``step`` millionths, as nobody decides, except those of ``held`` backends."""
        relaxed = []
        for factors in self._factors.values():
            if factors.backend in held:
                relaxed.append(factors)
                continue
            classes = {priority: min(FULL, factor + step) for priority, factor in factors.classes.items()}
            whole = min(FULL, factors.whole + step)
            relaxed.append(msgspec.structs.replace(factors, whole=whole, classes=classes))
        self.apply(relaxed, now_us)

    def offered(self) -> Mapping[tuple[str, int], int]:
        """Units asked for since the start, by backend and priority."""
        return {name: gate.offered for name, gate in self.by_class.items()}

    def own(self) -> Mapping[tuple[str, int], int]:
        """Offered units that clients' own limits denied, since the start, by backend and priority."""
        return {name: gate.own for name, gate in self.by_class.items()}

    def shed(self) -> Mapping[tuple[str, int], int]:
        """Units shed since the start, by backend and priority."""
        return {name: gate.shed for name, gate in self.by_class.items()}

    def _set(self, name: tuple[str, int], gate: ClassGate) -> None:
        backend, priority = name
        factors = self._factors.get(backend)
        if factors is None:
            gate.set(FULL, FULL, floor=FULL, reserve=0, seed=self._seed)
            return
        factor = factors.classes.get(priority, FULL)
        gate.set(factor, factors.whole, floor=factors.floor, reserve=factors.reserve, seed=self._seed)


class LoadFollower:
    """Applies published factors, and writes this node's demand and received reports to the store."""

    def __init__(
        self, node: str, factor_store: FactorStore, gates: Gates, reports: LoadReports, clock: Clock,
        book: Callable[[], Rulebook],
    ) -> None:  # fmt: skip
        self._node = node
        self._factor_store = factor_store
        self._gates = gates
        self._reports = reports
        self._clock = clock
        self._book = book
        self._offered: Mapping[tuple[str, int], int] = {}
        self._demand_written_us = 0
        self._reported_us = 0
        self._new_factors_us = 0
        self.shared = SharedFactors(at_us=0, node="")
        """The factors in force."""

    async def run(self) -> None:
        """Follow for ever."""
        while True:
            await self.follow()
            await asyncio.sleep(FOLLOW_EVERY_S)

    async def follow(self) -> None:
        """Read factors, and once a second write reports and demand; asks nothing while no backend is protected."""
        now_us = self._clock.now_us()
        # after the clock was set back, instants in the future must not delay anything
        self._reported_us, self._new_factors_us = min(self._reported_us, now_us), min(self._new_factors_us, now_us)
        reports = None
        if now_us - self._reported_us >= REPORT_EVERY_S * 1_000_000:
            reports, self._reported_us = self._reports.drain(now_us), now_us
        if not self._book().protected and not self.shared.backends:
            return
        try:
            body = await self._factor_store.read()
            self._apply(body, now_us)
            if reports is not None:
                await self._factor_store.store_reports(reports)
                await self._write_demand(now_us)
        except StoreUnavailableError:
            self._relax(now_us)

    def _apply(self, body: bytes | None, now_us: int) -> None:
        if body is not None:
            try:
                shared = _shared_decoder.decode(body)
            except UNREADABLE as error:  # written by another version: keep the factors in force
                log.warning("shared_factors_not_understood", error=str(error))
                shared = self.shared
            if shared.at_us != self.shared.at_us:
                self.shared, self._new_factors_us = shared, now_us
        known = self._book().protected
        factors = [entry for entry in self.shared.backends if entry.backend in known]
        if len(factors) != len(self.shared.backends):
            self.shared = msgspec.structs.replace(self.shared, backends=tuple(factors))
        if now_us - self._new_factors_us > HELD_WITHOUT_NEWS_S * 1_000_000 and self.shared.backends:
            self._relax(now_us)
        else:
            self._gates.apply(factors, now_us)

    def _relax(self, now_us: int) -> None:
        if now_us - self._new_factors_us > HELD_WITHOUT_NEWS_S * 1_000_000:
            by_hand = [name for name, (backend, _) in self._book().protected.items() if is_manual(backend, now_us)]
            self._gates.relax(round(RELAXED_BY * FOLLOW_EVERY_S), now_us, by_hand)

    async def _write_demand(self, now_us: int) -> None:
        own = self._gates.own()
        # units that a client's own limits deny never reach the backend, so they are no demand on it
        offered = {name: units - own[name] for name, units in self._gates.offered().items()}
        elapsed_s = (now_us - self._demand_written_us) / 1_000_000
        backends: dict[str, dict[int, int]] = {}
        if self._demand_written_us and 0 < elapsed_s < 10 * REPORT_EVERY_S:
            for (backend, priority), units in offered.items():
                asked = max(0, units - self._offered.get((backend, priority), 0))  # a denial may be a tick late
                backends.setdefault(backend, {})[priority] = round(asked * MILLI / elapsed_s)
        self._offered, self._demand_written_us = offered, now_us
        await self._factor_store.write_demand(
            self._node, msgspec.json.encode(NodeDemand(at_us=now_us, backends=backends))
        )
