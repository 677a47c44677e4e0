"""Reports of backends' load that a process received, until it writes them to the store."""

import math
from collections import Counter

import msgspec

from data_plane.load.ports import NamedReport
from data_plane.load.shared import StoredReport
from tidegate.contract.load import LoadReport

MAX_PENDING = 10_000
REFUSALS = ("unauthenticated", "forged", "malformed", "stale", "unknown", "implausible", "too_many")
SERVER_ERROR = 500


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
        self._pending: dict[tuple[str, str], StoredReport] = {}
        self._served: dict[tuple[str, str], _Served] = {}
        self.taken = 0
        self.refused: Counter[str] = Counter(dict.fromkeys(REFUSALS, 0))
        """Refused reports by reason; each starts at 0, so that Prometheus sees the first increase."""

    def take(self, reporter: str, report: LoadReport, now_us: int) -> None:
        """Take a report; the caller has verified the reporter."""
        at_us = now_us if report.at is None else min(now_us, round(report.at * 1_000_000))
        self._note(report.backend, reporter, StoredReport(reporter=reporter, at_us=at_us, signals=report.signals()))
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
        self._note(
            backend, f"{reporter}:{signal}", StoredReport(reporter=reporter, at_us=now_us, signals={signal: value})
        )
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
            entry = StoredReport(reporter=reporter, at_us=now_us, signals=signals, weight=served.requests)
            # a gateway may report to several nodes: one reporter, with one name a node
            drained.append(NamedReport(backend, f"{reporter}@{self._node}", msgspec.json.encode(entry)))
        self._served = {}
        return drained

    def _note(self, backend: str, name: str, entry: StoredReport) -> None:
        if len(self._pending) >= MAX_PENDING and (backend, name) not in self._pending:
            self.refused["too_many"] += 1
            return
        before = self._pending.get((backend, name))
        if before is None or before.at_us <= entry.at_us:
            self._pending[backend, name] = entry
