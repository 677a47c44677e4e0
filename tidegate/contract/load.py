"""Load of backends: the policies that follow it, what reporters say of it, and what a region makes of it.

A load of 1.0 means that a backend is exactly full. Factors are shares of full admission, from 0 to 1.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Literal

import msgspec

from tidegate.contract.limits import LIMIT_NAME, LimitRule, Violation, violations

Signal = Literal["cpu", "queue_delay_ms", "latency_ms", "error_rate", "in_flight"]
SIGNALS: tuple[Signal, ...] = ("cpu", "queue_delay_ms", "latency_ms", "error_rate", "in_flight")

CAPACITY, OPEN = "capacity", "capacity-open"
"""The names of a backend's capacity as limits: of the whole, and of the part that is open to all classes."""

MAX_SIGNAL = 1e12
MAX_LOAD_REPORTS = 100
MAX_SERVED_REPORTS = 1_000
MAX_QUERY_LENGTH = 2_048

Reason = Literal[
    "full", "cut", "held", "raised", "stepped", "reporters_missing", "recovering_unseen", "manual", "no_reports"
]
"""Why a factor is what it is: ``full`` nothing to do; ``cut``, ``raised`` and ``stepped`` by the signal named beside
it; ``held`` between the two; ``reporters_missing`` held because too few reporters report; ``recovering_unseen`` raised
step by step because they have not spoken for long; ``no_reports`` nobody ever spoke."""


class LoadStep(msgspec.Struct, frozen=True, kw_only=True):
    """Of a policy of type ``steps``: while the load is above this, the factor is that."""

    above: float
    factor: float


def _default_signals() -> dict[str, float]:
    return {"cpu": 1.0, "queue_delay_ms": 100.0}


class AdaptivePolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How admission follows a backend's load. A tick is a second; docs/adaptive.md explains each member."""

    policy: str
    type: Literal["controller", "steps"] = "controller"
    target: float = 0.8
    floor: float = 0.2
    """The lowest factor that load alone leads to."""
    steps: tuple[LoadStep, ...] = (LoadStep(above=0.8, factor=0.5), LoadStep(above=0.6, factor=0.75))
    hysteresis: float = 0.1
    """How far below its bound the load must be expected after a raise."""
    smoothing: float = 0.5
    """The weight of the newest tick in the smoothed load; 1 does not smooth."""
    cut_after: int = 2
    """Ticks above the target before a cut."""
    raise_after: int = 5
    """Ticks well below before the first raise."""
    deepest_cut: float = 0.5
    """One cut leaves at least this share of the factor."""
    raise_by: float = 0.05
    signals: dict[str, float] = msgspec.field(default_factory=_default_signals)
    """For each signal that counts, the value that means a load of 1.0."""
    min_reporters: int = 2
    """A cut needs so many reporters of the same signal."""
    stale_after_s: float = 10.0
    """A report older than this is ignored."""
    hold_s: float = 15.0
    """How long the factor is held when too few report, before it recovers step by step."""
    critical: int | None = None
    """Plans of this priority or a higher one are critical: served first, and from the reserve."""
    reserve: float = 0.0
    """The share of a backend's capacity that only critical plans may use."""
    class_floor: float = 0.0
    """No class's own factor falls below this; with more than 0 the critical class may have to give way earlier."""
    retry_after_s: int = 5
    """The least that shed clients must wait; up to twice as much, so that they do not return together."""


class Capacity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a backend serves in each region: ``limit`` units a window, in a token bucket of ``burst`` (else ``limit``).

    ``id`` and ``open_id`` name the stored state of the whole and of the part that is open to all classes.
    """

    id: int
    open_id: int
    limit: int
    window_us: int
    burst: int | None = None


class ManualFactor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An operator's own factor for a backend in every region, until ``expires_at`` (epoch seconds)."""

    factor: float
    expires_at: float


class Pull(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A signal that the deciding node asks for: ``server`` is a name in the node's own settings, never an address."""

    server: str
    signal: str
    query: str


class Backend(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What serves endpoints: how much it can take, and the policy that protects it."""

    backend: str
    capacity: Capacity | None = None
    adaptive: str | None = None
    manual: ManualFactor | None = None
    pulls: tuple[Pull, ...] = ()


class Reporter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who may report the load of ``backends``. Only hashes (SHA-256, hex) of its credentials travel and rest.

    ``previous_sha256`` is the credential before the last rotation; it holds until ``previous_expires_at`` (epoch s).
    """

    reporter: str
    sha256: str
    backends: tuple[str, ...] = ()
    previous_sha256: str | None = None
    previous_expires_at: float | None = None


Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Figure = Annotated[float, msgspec.Meta(ge=0, le=MAX_SIGNAL)]


class LoadReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One item of ``POST /v1/load``: how busy a backend was at ``at`` (epoch seconds; now if absent)."""

    backend: Name
    cpu: Figure | None = None
    queue_delay_ms: Figure | None = None
    latency_ms: Figure | None = None
    error_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    in_flight: Figure | None = None
    at: float | None = None

    def signals(self) -> dict[str, float]:
        """The signals that it has."""
        found = ((signal, getattr(self, signal)) for signal in SIGNALS)
        return {signal: value for signal, value in found if value is not None}


class ServedReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One item of ``POST /v1/report``: what became of a request that a gateway forwarded.

    Named by ``backend``, by ``endpoint``, or by ``method`` and ``path``.
    """

    status: Annotated[int, msgspec.Meta(ge=100, le=599)]
    latency_ms: Annotated[float, msgspec.Meta(ge=0, le=3_600_000)]
    backend: Name | None = None
    endpoint: Name | None = None
    method: Annotated[str, msgspec.Meta(min_length=1, max_length=32)] | None = None
    path: Annotated[str, msgspec.Meta(min_length=1, max_length=8_192)] | None = None


Label = Annotated[str, msgspec.Meta(max_length=128, pattern=r"^[^\x00]*$")]
InstantS = Annotated[float, msgspec.Meta(ge=0, lt=7_258_118_400.0)]
"""Before the year 2200."""


class ClassLoad(msgspec.Struct, frozen=True, kw_only=True):
    """A class of clients, by the priority of their plans: what share of it is admitted, and what it asks for."""

    priority: Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
    factor: float
    offered_per_s: float


class BackendLoad(msgspec.Struct, frozen=True, kw_only=True):
    """Why a backend's factor is what it is in one region. Times are epoch seconds."""

    backend: Label
    policy: Label
    factor: float
    reason: Label
    """One of ``Reason``."""
    since: InstantS
    """Since when the factor has this value."""
    decided_at: InstantS
    decided_by: Label
    signal: Label | None = None
    """The signal that weighs most, and the smoothed load by it."""
    load: float | None = None
    reporters: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    classes: Annotated[tuple[ClassLoad, ...], msgspec.Meta(max_length=64)] = ()


class RegionLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What a region's agent sends to the control plane: its backends under a policy."""

    node: Label
    backends: Annotated[tuple[BackendLoad, ...], msgspec.Meta(max_length=1_000)] = ()


def policy_violations(policy: AdaptivePolicy) -> Iterator[Violation]:
    """Yield what makes a policy unacceptable, field by field; nothing when it is sound."""
    for field, low, high in (
        ("target", 0.05, 1.0), ("floor", 0.01, 1.0), ("hysteresis", 0.0, 0.5), ("smoothing", 0.05, 1.0),
        ("cut_after", 1, 60), ("raise_after", 1, 600), ("deepest_cut", 0.05, 0.99), ("raise_by", 0.001, 1.0),
        ("min_reporters", 1, 100), ("stale_after_s", 2, 600), ("hold_s", 0, 3_600), ("reserve", 0.0, 0.9),
        ("class_floor", 0.0, 1.0), ("retry_after_s", 1, 600),
    ):  # fmt: skip
        if not low <= getattr(policy, field) <= high:  # also refuses NaN
            yield Violation(field, f"must be from {low} to {high}")
    if policy.hysteresis >= policy.target:
        yield Violation("hysteresis", "must be below the target")
    if policy.reserve and policy.critical is None:
        yield Violation(
            "reserve", "needs to know who is critical: give critical, the lowest plan priority of that class"
        )
    if not policy.signals:
        yield Violation("signals", "name at least one")
    for signal, full in policy.signals.items():
        if signal not in SIGNALS:
            yield Violation("signals", f"{signal!r} is not one of {', '.join(SIGNALS)}")
        elif not (math.isfinite(full) and 0 < full <= MAX_SIGNAL):
            yield Violation(f"signals.{signal}", f"the value that means a load of 1.0 must be from 0 to {MAX_SIGNAL:g}")
    yield from _step_violations(policy.steps)


def _step_violations(steps: tuple[LoadStep, ...]) -> Iterator[Violation]:
    if not 1 <= len(steps) <= 16:
        yield Violation("steps", "from 1 to 16")
    for place, step in enumerate(steps):
        if not 0 < step.above <= 100:
            yield Violation(f"steps[{place}].above", "must be above 0, at most 100")
        if not 0 < step.factor < 1:
            yield Violation(f"steps[{place}].factor", "must be between 0 and 1")
    for place, (higher, lower) in enumerate(pairwise(steps), 1):
        if not (higher.above > lower.above and higher.factor < lower.factor):
            yield Violation(f"steps[{place}]", "steps go from the highest load down, and their factors up")


def capacity_rule(capacity: Capacity, region: str, adaptive: str | None) -> LimitRule:
    """A backend's capacity as the limit that it is: a token bucket of its own in each region."""
    return LimitRule(
        id=capacity.id,
        name=CAPACITY,
        scope="backend",
        algorithm="token_bucket",
        limit=capacity.limit,
        window_us=capacity.window_us,
        burst=capacity.burst,
        mode="regional",
        shares={region: capacity.limit},
        adaptive=adaptive,
    )


def backend_violations(backend: Backend) -> Iterator[Violation]:
    """Yield what makes a backend unacceptable, field by field."""
    if backend.capacity is not None:
        if backend.capacity.limit < 1:
            yield Violation("capacity.limit", "must be at least 1")
        for violation in violations(capacity_rule(backend.capacity, "", None)):
            yield Violation(f"capacity.{violation.field}", violation.message)
    if backend.manual is not None and not 0.0 <= backend.manual.factor <= 1.0:
        yield Violation("manual.factor", "must be from 0 to 1")
    for place, pull in enumerate(backend.pulls):
        if pull.signal not in SIGNALS:
            yield Violation(f"pulls[{place}].signal", f"must be one of {', '.join(SIGNALS)}")
        if not LIMIT_NAME.fullmatch(pull.server):
            yield Violation(f"pulls[{place}].server", "must match [a-z0-9._-]{1,64}: a name, not an address")
        if not 0 < len(pull.query) <= MAX_QUERY_LENGTH:
            yield Violation(f"pulls[{place}].query", f"from 1 to {MAX_QUERY_LENGTH} characters")
