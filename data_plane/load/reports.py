"""What this node heard of backends' load, until it is pinned where the deciding node reads it."""

import math
from collections import Counter

import msgspec

from data_plane.load.ports import Pinned
from data_plane.load.shared import SaidEntry
from tidegate.contract.load import LoadReport

MOST_PENDING = 10_000
REFUSALS = ("unauthenticated", "forged", "malformed", "stale", "unknown", "implausible", "too_many")
SERVER_ERROR = 500


class _Served:
    """What a gateway's requests to a backend came to since the last look."""

    __slots__ = ("errors", "latency_ms", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.latency_ms = 0.0


class LoadReports:
    """Keeps the newest word of each reporter on each backend; bounded, and counted."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._pending: dict[tuple[str, str], SaidEntry] = {}
        self._served: dict[tuple[str, str], _Served] = {}
        self.taken = 0
        self.refused: Counter[str] = Counter(dict.fromkeys(REFUSALS, 0))
        """By reason, a closed set; from 0, so that Prometheus sees the first increase."""

    def take(self, reporter: str, report: LoadReport, now_us: int) -> None:
        """A reporter's word; the caller has checked who it is."""
        at_us = now_us if report.at is None else min(now_us, round(report.at * 1_000_000))
        self._note(report.backend, reporter, SaidEntry(reporter=reporter, at_us=at_us, signals=report.signals()))
        self.taken += 1

    def take_served(self, gateway: str, backend: str, status: int, latency_ms: float) -> None:
        """What became of one request that a gateway forwarded."""
        served = self._served.get((backend, gateway))
        if served is None:
            if len(self._served) >= MOST_PENDING:
                self.refused["too_many"] += 1
                return
            served = self._served[backend, gateway] = _Served()
        served.requests += 1
        served.errors += status >= SERVER_ERROR
        served.latency_ms += latency_ms
        self.taken += 1

    def take_pulled(self, server: str, backend: str, signal: str, value: float, now_us: int) -> None:
        """The answer of a server of ours to one query.

        All signals of a server are one reporter's, each pinned by itself: one that fails grows stale beside the others.
        """
        if not math.isfinite(value) or value < 0:
            self.refused["implausible"] += 1
            return
        reporter = f"pull:{server}"
        self._note(backend, f"{reporter}:{signal}", SaidEntry(reporter=reporter, at_us=now_us, signals={signal: value}))
        self.taken += 1

    def drain(self, now_us: int) -> list[Pinned]:
        """All that is new, to be pinned; called once a second whether it can be or not, for it is the last second's."""
        pinned = [Pinned(backend, name, msgspec.json.encode(entry)) for (backend, name), entry in self._pending.items()]
        self._pending = {}
        for (backend, gateway), served in self._served.items():
            reporter = f"gateway:{gateway}"
            signals = {
                "latency_ms": served.latency_ms / served.requests,
                "error_rate": served.errors / served.requests,
            }
            entry = SaidEntry(reporter=reporter, at_us=now_us, signals=signals, weight=served.requests)
            # a gateway speaks through several nodes, and is one voice: a name a node, one reporter
            pinned.append(Pinned(backend, f"{reporter}@{self._node}", msgspec.json.encode(entry)))
        self._served = {}
        return pinned

    def _note(self, backend: str, name: str, entry: SaidEntry) -> None:
        if len(self._pending) >= MOST_PENDING and (backend, name) not in self._pending:
            self.refused["too_many"] += 1
            return
        before = self._pending.get((backend, name))
        if before is None or before.at_us <= entry.at_us:
            self._pending[backend, name] = entry
