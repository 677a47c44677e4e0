"""A node's side of adaptive limits: it reports load and demand, and applies the factors that an agent decided.

While the store is unavailable the last factors hold for a while; then they are raised step by step, except those that
an operator has set.
"""

import asyncio
import math
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import structlog

from data_plane.config.load_gate import FULL, ClassGate, GatePass, hour_seed
from data_plane.config.rulebook import Rulebook
from data_plane.load.controller import MILLI, BackendFactors, NodeDemand, Report, SharedFactors, is_manual
from data_plane.store.ports import Clock, Reply, StoreUnavailableError
from data_plane.store.redis.store import RedisCounterStore
from data_plane.store.scripts import hold_leases_script, load_publish_script
from tidegate.contract.decoding import UNREADABLE
from tidegate.contract.load import LoadReport

log = structlog.get_logger()
FOLLOW_EVERY_S = 0.25
REPORT_EVERY_S = 1.0
HELD_WITHOUT_NEWS_S = 15.0
RELAXED_BY = FULL // 20
"""By how much factors are raised a second after that time without new ones."""

MAX_PENDING = 10_000
REFUSALS = ("unauthenticated", "forged", "malformed", "stale", "unknown", "implausible", "too_many")
SERVER_ERROR = 500

LEASE = "tg:{load}:lease"
FACTORS = "tg:{load}:factors"
DEMAND = "tg:{load}:demand"
REPORTS = "tg:{load}:said:"
LEASE_MS = 3_000
KEPT_MS = 3_600_000

_shared_decoder = msgspec.json.Decoder(SharedFactors)


class NamedReport(NamedTuple):
    """An encoded report on a backend, and the name that it is stored under."""

    backend: str
    name: str
    body: bytes


class _Served:
    """Results of a gateway's requests to a backend since the last drain."""

    __slots__ = ("errors", "latency_ms", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.latency_ms = 0.0


class LoadReports:
    """Holds each reporter's newest report on each backend; bounded."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._pending: dict[tuple[str, str], Report] = {}
        self._served: dict[tuple[str, str], _Served] = {}
        self.taken = 0
        self.refused: Counter[str] = Counter(dict.fromkeys(REFUSALS, 0))
        """Refused reports by reason; each starts at 0, so that Prometheus sees the first increase."""

    def take(self, reporter: str, report: LoadReport, now_us: int) -> None:
        """Take a report; the caller has verified the reporter."""
        at_us = now_us if report.at is None else min(now_us, round(report.at * 1_000_000))
        self._note(report.backend, reporter, Report(reporter=reporter, at_us=at_us, signals=report.signals()))
        self.taken += 1

    def take_served(self, gateway: str, backend: str, status: int, latency_ms: float) -> None:
        """Take the result of one request that a gateway forwarded."""
        served = self._served.get((backend, gateway))
        if served is None:
            if len(self._served) >= MAX_PENDING:
                self.refused["too_many"] += 1
                return
            served = self._served[backend, gateway] = _Served()
        served.requests += 1
        served.errors += status >= SERVER_ERROR
        served.latency_ms += latency_ms
        self.taken += 1

    def take_pulled(self, server: str, backend: str, signal: str, value: float, now_us: int) -> None:
        """Take a pulled signal.

        All signals of a server count as one reporter; each is stored by itself, so that one can become stale alone.
        """
        if not math.isfinite(value) or value < 0:
            self.refused["implausible"] += 1
            return
        reporter = f"pull:{server}"
        self._note(backend, f"{reporter}:{signal}", Report(reporter=reporter, at_us=now_us, signals={signal: value}))
        self.taken += 1

    def drain(self, now_us: int) -> list[NamedReport]:
        """Take all new reports out. Called once a second, also if they cannot be stored, as they cover one second."""
        drained = [
            NamedReport(backend, name, msgspec.json.encode(entry)) for (backend, name), entry in self._pending.items()
        ]
        self._pending = {}
        for (backend, gateway), served in self._served.items():
            reporter = f"gateway:{gateway}"
            signals = {
                "latency_ms": served.latency_ms / served.requests,
                "error_rate": served.errors / served.requests,
            }
            entry = Report(reporter=reporter, at_us=now_us, signals=signals, weight=served.requests)
            # a gateway may report to several nodes: one reporter, with one name a node
            drained.append(NamedReport(backend, f"{reporter}@{self._node}", msgspec.json.encode(entry)))
        self._served = {}
        return drained

    def _note(self, backend: str, name: str, entry: Report) -> None:
        if len(self._pending) >= MAX_PENDING and (backend, name) not in self._pending:
            self.refused["too_many"] += 1
            return
        before = self._pending.get((backend, name))
        if before is None or before.at_us <= entry.at_us:
            self._pending[backend, name] = entry


class RedisFactorStore:
    """Reports, demand and factors in the region's store, all in one slot; losing them is harmless.

    Every method raises ``StoreUnavailableError``.
    """

    def __init__(self, store: RedisCounterStore, node: str) -> None:
        self._store = store
        self._owner = f"{node}-{secrets.token_hex(4)}".encode()

    async def store_reports(self, reports: Sequence[NamedReport]) -> None:
        """Store reports; each replaces the one before of the same name."""
        by_backend: dict[str, list[str | bytes]] = {}
        for report in reports:
            by_backend.setdefault(report.backend, []).extend((report.name, report.body))
        for backend, pairs in by_backend.items():
            await self._store.execute("HSET", REPORTS + backend, *pairs)
            await self._store.execute("PEXPIRE", REPORTS + backend, KEPT_MS)

    async def reports_on(self, backend: str) -> Mapping[str, bytes]:
        """The reports on a backend, by name."""
        return await self._hash(REPORTS + backend)

    async def drop_reports(self, backend: str, names: Sequence[str]) -> None:
        """Drop reports."""
        if names:
            await self._store.execute("HDEL", REPORTS + backend, *names)

    async def write_demand(self, node: str, body: bytes) -> None:
        """Write a node's demand."""
        await self._store.execute("HSET", DEMAND, node, body)

    async def demands(self) -> Mapping[str, bytes]:
        """The demand of each node."""
        return await self._hash(DEMAND)

    async def drop_demands(self, nodes: Sequence[str]) -> None:
        """Drop the demand of nodes that are gone."""
        if nodes:
            await self._store.execute("HDEL", DEMAND, *nodes)

    async def hold_lease(self) -> bool:
        """Take or renew the lease. Returns whether this agent holds it."""
        return bool(await self._hold_leases(1))

    async def release_lease(self) -> None:
        """Release the lease, if this agent holds it."""
        await self._hold_leases(0)

    async def publish(self, body: bytes) -> bool:
        """Publish factors. Returns whether this agent still holds the lease; else nothing is done."""
        keys = [LEASE.encode(), FACTORS.encode()]
        return bool(await self._store.call_script(load_publish_script(), keys, [self._owner, body, KEPT_MS]))

    async def read(self) -> bytes | None:
        """The factors published last."""
        body: bytes | None = await self._store.execute("GET", FACTORS)
        return body

    async def _hold_leases(self, most: int) -> Reply:
        return await self._store.call_script(hold_leases_script(), [LEASE.encode()], [self._owner, LEASE_MS, most])

    async def _hash(self, key: str) -> Mapping[str, bytes]:
        found = await self._store.execute("HGETALL", key)
        pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
        return {name.decode("utf-8", "replace"): body for name, body in pairs}


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
        self, node: str, factor_store: RedisFactorStore, gates: Gates, reports: LoadReports, clock: Clock,
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
