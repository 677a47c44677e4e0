"""Usage as it is counted: two lookups and two additions a decision, everything else when it is collected.

Counts are kept by the limits that applied (``LimitSet``) and by who called; taking them starts with empty dictionaries,
so nothing that was decided once is held on to.
"""

from data_plane.config.index import Principal
from data_plane.config.limit_set import LimitSet
from data_plane.decide.pending_check import PendingCheck, Verdict
from tidegate.contract.usage import MOST_UNITS, OUTSIDE_PLANS, Denials, LimitName, Place

Objections = tuple[tuple[int, ...], tuple[int, ...]]
"""Positions of the limits that denied, and of those that would have (shadow)."""


_BY_THE_ONLY: Objections = ((0,), ())
_BY_NONE: Objections = ((), ())


class Counts:
    """What one caller did under one set of limits."""

    __slots__ = ("allowed", "cost", "objected")

    def __init__(self) -> None:
        self.allowed = 0
        self.cost = 0
        """Units that the allowed requests took."""
        self.objected: dict[Objections, tuple[int, int]] | None = None
        """Requests and their units, by the limits that objected."""

    def add(self, other: "Counts") -> None:
        """Take in what was counted elsewhere."""
        self.allowed += other.allowed
        self.cost += other.cost
        for objections, (requests, cost) in (other.objected or {}).items():
            self.object(objections, requests, cost)

    def object(self, objections: Objections, requests: int, cost: int) -> None:
        """Count requests that limits objected to."""
        if self.objected is None:
            self.objected = {}
        had_requests, had_cost = self.objected.get(objections, (0, 0))
        self.objected[objections] = (had_requests + requests, had_cost + cost)

    def denials(self) -> tuple[Denials, ...]:
        """The objections as they travel."""
        if self.objected is None:
            return ()
        return tuple(
            Denials(denied, shadow, requests, min(cost, MOST_UNITS))
            for (denied, shadow), (requests, cost) in self.objected.items()
        )

    def requests(self) -> int:
        """How many requests these are."""
        if self.objected is None:
            return self.allowed
        return self.allowed + sum(one.requests for one in self.denials() if one.stopped)


Callers = dict[Principal | None, Counts]
Open = dict[LimitSet, Callers]
"""By the limits that applied, and by who called (``None``: nobody that is known)."""


class UsageTally:
    """Counts decisions until they are taken: an ``Observer`` of the decider.

    Requests of cost 0 only look, and those to exempt endpoints are nobody's business: neither is usage.
    """

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: Open = {}

    def passed(self, check: PendingCheck) -> None:
        """Count what was plainly allowed."""
        cost = check.cost
        if not cost:
            return
        try:
            counts = self._open[check.bound][check.principal]
        except KeyError:
            counts = self._begin(check.bound, check.principal)
        counts.allowed += 1
        counts.cost += cost

    def decided(self, check: PendingCheck, verdict: Verdict, now_us: int) -> None:  # noqa: ARG002  an observer's shape
        """Count everything else."""
        cost = check.cost
        if not cost:
            return
        try:
            counts = self._open[check.bound][check.principal]
        except KeyError:
            counts = self._begin(check.bound, check.principal)
        if verdict.allowed:
            counts.allowed += 1
            counts.cost += cost
            if verdict.shadow_denied:
                counts.object(_objections(verdict), 1, cost)
        else:
            counts.object(_objections(verdict), 1, cost)

    def held(self, check: PendingCheck, requests: int, cost: int) -> None:
        """Count what was taken at once for later, a lease's units or a reservation; negative: what came back."""
        counts = self._begin(check.bound, check.principal)
        counts.allowed += requests
        counts.cost += cost

    def not_held(self, verdict: Verdict) -> None:
        """Count a lease or a reservation that was denied: one request."""
        check = verdict.check
        self._begin(check.bound, check.principal).object(_objections(verdict), 1, check.cost)

    def repeated(self, check: PendingCheck, denied: tuple[int, ...], requests: int) -> None:
        """Count requests that somebody else denied by the limits at these positions; ``check.cost`` is their sum."""
        self._begin(check.bound, check.principal).object((denied, ()), requests, check.cost)

    def take(self) -> Open:
        """All that was counted since the last time."""
        taken, self._open = self._open, {}
        return taken

    def _begin(self, bound: LimitSet, principal: Principal | None) -> Counts:
        return self._open.setdefault(bound, {}).setdefault(principal, Counts())


def _objections(verdict: Verdict) -> Objections:
    """Which limits denied, and which would have, by their positions."""
    limits = verdict.check.bound.limits
    if len(verdict.outcomes) == 1:
        return _BY_THE_ONLY if verdict.violated else _BY_THE_ONLY[::-1] if verdict.shadow_denied else _BY_NONE
    denying = [at for at, outcome in enumerate(verdict.outcomes) if not outcome.allowed]
    denied = tuple(at for at in denying if not limits[at].rule.shadow)
    return denied, tuple(at for at in denying if limits[at].rule.shadow)


def place_of(bound: LimitSet) -> Place:
    """The limits of ``bound`` by their names, for those who were not there."""
    names = tuple(
        LimitName(bound.plan if limit.rule.id in bound.of_plan else OUTSIDE_PLANS, limit.rule.name)
        for limit in bound.limits
    )
    return Place(bound.plan, bound.endpoint, names)
