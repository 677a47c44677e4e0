"""Counts usage: two lookups and two additions a decision; everything else is done at collection.

Counts are by limit set and by caller. Each collection starts with empty dictionaries, so that old limit sets and
callers are released.
"""

from data_plane.config.index import Principal
from data_plane.config.limit_set import LimitSet
from data_plane.decide.pending_check import PendingCheck, Verdict
from tidegate.contract.usage import MOST_UNITS, OUTSIDE_PLANS, Denials, LimitName, Place

DenyingLimits = tuple[tuple[int, ...], tuple[int, ...]]
"""Places of the limits that denied, and of the shadow limits that would have."""


_BY_THE_ONLY: DenyingLimits = ((0,), ())
_BY_NONE: DenyingLimits = ((), ())


class Counts:
    """The requests of one caller under one limit set."""

    __slots__ = ("allowed", "cost", "denied_by")

    def __init__(self) -> None:
        self.allowed = 0
        self.cost = 0
        """Units that the allowed requests took."""
        self.denied_by: dict[DenyingLimits, tuple[int, int]] | None = None
        """Denied requests and their units, by the limits that denied."""

    def add(self, other: "Counts") -> None:
        """Add other counts."""
        self.allowed += other.allowed
        self.cost += other.cost
        for limits, (requests, cost) in (other.denied_by or {}).items():
            self.deny(limits, requests, cost)

    def deny(self, limits: DenyingLimits, requests: int, cost: int) -> None:
        """Count requests that limits denied, or would have."""
        if self.denied_by is None:
            self.denied_by = {}
        requests_before, cost_before = self.denied_by.get(limits, (0, 0))
        self.denied_by[limits] = (requests_before + requests, cost_before + cost)

    def denials(self) -> tuple[Denials, ...]:
        """The denied requests, as they travel."""
        if self.denied_by is None:
            return ()
        return tuple(
            Denials(denied, shadow, requests, min(cost, MOST_UNITS))
            for (denied, shadow), (requests, cost) in self.denied_by.items()
        )

    def requests(self) -> int:
        """Number of requests."""
        if self.denied_by is None:
            return self.allowed
        return self.allowed + sum(denial.requests for denial in self.denials() if denial.stopped)


Callers = dict[Principal | None, Counts]
Open = dict[LimitSet, Callers]
"""Counts by limit set and by caller (``None``: anonymous)."""


class UsageTally:
    """Counts decisions until they are collected; an ``Observer`` of the decider.

    Requests of cost 0 and requests to exempt endpoints are no usage.
    """

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: Open = {}

    def passed(self, check: PendingCheck) -> None:
        """Count a plainly allowed check."""
        cost = check.cost
        if not cost:
            return
        try:
            counts = self._open[check.limit_set][check.principal]
        except KeyError:
            counts = self._begin(check.limit_set, check.principal)
        counts.allowed += 1
        counts.cost += cost

    def decided(self, check: PendingCheck, verdict: Verdict, now_us: int) -> None:  # noqa: ARG002  an observer's shape
        """Count any other check."""
        cost = check.cost
        if not cost:
            return
        try:
            counts = self._open[check.limit_set][check.principal]
        except KeyError:
            counts = self._begin(check.limit_set, check.principal)
        if verdict.allowed:
            counts.allowed += 1
            counts.cost += cost
            if verdict.shadow_denied:
                counts.deny(_denying_limits(verdict), 1, cost)
        else:
            counts.deny(_denying_limits(verdict), 1, cost)

    def held(self, check: PendingCheck, requests: int, cost: int) -> None:
        """Count units of a lease or a reservation; negative figures are units that came back."""
        counts = self._begin(check.limit_set, check.principal)
        counts.allowed += requests
        counts.cost += cost

    def not_held(self, verdict: Verdict) -> None:
        """Count a lease or a reservation that was denied: one request."""
        check = verdict.check
        self._begin(check.limit_set, check.principal).deny(_denying_limits(verdict), 1, check.cost)

    def repeated(self, check: PendingCheck, denied: tuple[int, ...], requests: int) -> None:
        """Count requests that a client library denied, by these places of limits; ``check.cost`` is their sum."""
        self._begin(check.limit_set, check.principal).deny((denied, ()), requests, check.cost)

    def take(self) -> Open:
        """Take the counts since the last call."""
        taken, self._open = self._open, {}
        return taken

    def _begin(self, limit_set: LimitSet, principal: Principal | None) -> Counts:
        return self._open.setdefault(limit_set, {}).setdefault(principal, Counts())


def _denying_limits(verdict: Verdict) -> DenyingLimits:
    """The places of limits that denied, and of those that would have."""
    limits = verdict.check.limit_set.limits
    if len(verdict.outcomes) == 1:
        return _BY_THE_ONLY if verdict.violated else _BY_THE_ONLY[::-1] if verdict.shadow_denied else _BY_NONE
    denying = [place for place, outcome in enumerate(verdict.outcomes) if not outcome.allowed]
    denied = tuple(place for place in denying if not limits[place].rule.shadow)
    return denied, tuple(place for place in denying if limits[place].rule.shadow)


def place_of(limit_set: LimitSet) -> Place:
    """The limits of a limit set by name, for the control plane."""
    names = tuple(
        LimitName(limit_set.plan if limit.rule.id in limit_set.of_plan else OUTSIDE_PLANS, limit.rule.name)
        for limit in limit_set.limits
    )
    return Place(limit_set.plan, limit_set.endpoint, names)
