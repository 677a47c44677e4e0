"""What a replica counts of itself for ``/metrics``: names begin with ``tidegate_control_plane_``; times are seconds.

Nothing here asks the database: a scrape costs the same when Postgres is away.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
_PREFIX = "tidegate_control_plane_"
_QUICK_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SLOW_S = (0.01, 0.1, 1.0, 10.0, 60.0, 300.0)


class Metrics:
    """The counters of one replica, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter("requests", "Answered requests", "method", "route", "status")
        self._request_s = self._histogram("request_duration_seconds", "Time to the answer's head", _QUICK_S, "route")
        self._acks = self._counter("acks", "Revisions that nodes applied")
        self._nacks = self._counter("nacks", "Revisions that nodes refused")
        self._push_s = self._histogram("push_seconds", "From learning of a revision to a node's ACK of it", _QUICK_S)
        self._frames = self._counter("frames", "Snapshots and deltas made for streams", "kind")
        self._job_runs = self._counter("job_runs", "Finished runs of jobs", "name", "outcome")
        self._job_s = self._histogram("job_duration_seconds", "Time that a run took", _SLOW_S, "name")

    def request_answered(self, method: str, route: str, status: int, took_s: float) -> None:
        """An answer's head went out. ``route`` is the template, never the path: its values belong to customers."""
        self._requests.labels(method, route, str(status)).inc()
        self._request_s.labels(route).observe(took_s)

    def revision_applied(self, lag_s: float | None) -> None:
        """A node ACKed; ``lag_s`` is unknown for a revision that is not among the newest."""
        self._acks.inc()
        if lag_s is not None:
            self._push_s.observe(lag_s)

    def revision_refused(self) -> None:
        """A node sent a NACK."""
        self._nacks.inc()

    def frames_made(self, kind: str) -> None:
        """A ``snapshot`` or ``delta`` was read and encoded, for however many streams."""
        self._frames.labels(kind).inc()

    def job_known(self, job: str) -> None:
        """Counts from 0: a counter that appears with its first failure shows no increase, and no alert would fire."""
        for outcome in ("done", "failed"):
            self._job_runs.labels(job, outcome)

    def job_ran(self, job: str, outcome: str, took_s: float) -> None:
        """A job's run ended."""
        self._job_runs.labels(job, outcome).inc()
        self._job_s.labels(job).observe(took_s)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show what ``value`` answers at each scrape."""
        Gauge(_PREFIX + name, text, registry=self._registry).set_function(value)

    def render(self) -> bytes:
        """The text of ``/metrics``."""
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(_PREFIX + name, text, labels, registry=self._registry, buckets=buckets)
