"""A check on its way from a handler to the store and back, and what becomes of it."""

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

import msgspec

from data_plane.config.index import Principal
from data_plane.config.limit_set import NO_LIMITS, LimitSet
from data_plane.config.load_gate import GatePass
from data_plane.store.packing import NEVER, UNKNOWN, Outcome, params_in
from data_plane.store.ports import StoreUnavailableError
from tidegate.contract.decision import Cause, CheckRequest, LimitCause

if TYPE_CHECKING:
    from data_plane.decide.decider import Decider


ANONYMOUS_PLAN = "anonymous"


class Refusal(Enum):
    """Why a request is turned away before any limit is looked at."""

    MISSING_KEY = "missing_api_key"
    UNKNOWN_KEY = "unknown_api_key"
    SUSPENDED = "client_suspended"
    BLOCKED_ABUSE = "blocked_abuse"
    BLOCKED_SECURITY = "blocked_security"
    BLOCKED_BILLING = "blocked_billing"
    BLOCKED_LEGAL = "blocked_legal"
    BLOCKED_OTHER = "blocked_other"


class PendingCheck:
    """One check: who asks, under which limits, and where its answer goes.

    A handler makes it and fills in ``decider``, ``request`` and ``asked_us``; the decider fills in the rest. Subclasses
    hold these in slots: this class has none, so that a handler can merge it with a class of its own. Each sends its
    answer in ``decided``, and may answer what is plainly allowed in a ``done`` of its own.
    """

    if not TYPE_CHECKING:  # mypy would have subclasses' slots be these
        __slots__ = ()

    decider: "Decider"
    request: CheckRequest
    asked_us: int
    """The node's clock when it was asked, microseconds since the epoch."""
    revision: int
    principal: Principal | None
    limit_set: LimitSet
    keys: Sequence[bytes]
    """The counters' keys, in the order of ``limit_set.limits``."""
    cost: int
    packed: bytes

    @property
    def request_id(self) -> str | None:
        """What names the check in its answer, in the log and in traces; ``None`` for one that no handler makes."""
        return None

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """The headers of the request: lower-case names and values, in the order sent."""
        return ()

    @property
    def params(self) -> Sequence[bytes]:
        """Each limit's script arguments, packed, with its price where it has one."""
        return self.limit_set.params if self.limit_set.gate_pass is None else params_in(self.packed)

    @property
    def plan(self) -> str:
        """The plan of whoever asks."""
        return ANONYMOUS_PLAN if self.principal is None else self.principal.plan

    @property
    def client_json(self) -> bytes:
        """The client's name as JSON."""
        return b"null" if self.principal is None else self.principal.json

    def done(self, figures: Sequence[int], at: int, now_us: int, *, degraded: bool = False) -> None:
        """The store has decided; or the store fallback, if ``degraded``."""
        self.decider.answered(self, figures, at, now_us, degraded=degraded)

    def failed(self, error: StoreUnavailableError, now_us: int) -> None:
        """The store gave no answer."""
        self.decider.unanswered(self, error, now_us)

    def decided(self, result: "Verdict | Refusal", now_us: int) -> None:
        """The answer, given once; ``now_us`` is the node's clock. Must not raise."""
        raise NotImplementedError


CHECK_SLOTS = (
    "asked_us", "cost", "decider", "keys", "limit_set", "packed", "principal", "request", "revision",
)  # fmt: skip
"""The ``__slots__`` of a subclass that has instances."""


class ResolvedCheck(PendingCheck):
    """A check whose limits and keys are wanted without a decision, for example for a lease."""

    __slots__ = CHECK_SLOTS

    def __init__(self, request: CheckRequest, principal: Principal | None = None) -> None:
        self.request = request
        self.principal = principal
        self.limit_set = NO_LIMITS
        self.keys = ()
        self.cost = 0


class Verdict(msgspec.Struct, frozen=True):
    """The answer to a check. ``shown`` is the position of the limit that headers show, or ``None``."""

    check: PendingCheck
    allowed: bool
    outcomes: list[Outcome]
    shown: int | None
    violated: tuple[str, ...]
    shadow_denied: tuple[str, ...]
    degraded: bool
    by_load: bool = False
    """Denied because of a backend's load, not because the client has used up its limit."""
    shed_s: int = 0
    """Seconds to wait, where the gate shed the check before any limit was asked."""


def conclude(check: PendingCheck, outcomes: list[Outcome], *, degraded: bool = False) -> Verdict:
    """All or nothing: allowed unless an enforced limit denies; a denial shows the limit with the longest wait."""
    limit_set = check.limit_set
    limits = limit_set.limits
    for outcome in outcomes:
        if not outcome.allowed:
            break
    else:
        return Verdict(check, True, outcomes, limit_set.headline if limits else None, (), (), degraded)
    if len(limits) == 1:
        rule = limits[0].rule
        if rule.shadow:
            return Verdict(check, True, outcomes, 0, (), (rule.name,), degraded)
        return Verdict(check, False, outcomes, 0, (rule.name,), (), degraded)
    denying = [at for at, outcome in enumerate(outcomes) if not outcome.allowed]
    enforced = [at for at in denying if not limits[at].rule.shadow]
    shadow_denied = tuple(limits[at].rule.name for at in denying if limits[at].rule.shadow)
    if not enforced:
        return Verdict(check, True, outcomes, limit_set.headline, (), shadow_denied, degraded)
    shown = max(enforced, key=lambda at: float("inf") if outcomes[at].retry_us == NEVER else outcomes[at].retry_us)
    violated = tuple(limits[at].rule.name for at in enforced)
    return Verdict(check, False, outcomes, shown, violated, shadow_denied, degraded)


def denied_at_a_price(verdict: Verdict, gate_pass: GatePass, cost: int) -> Verdict:
    """A denial of priced limits as the client sees it: what is left at that price, and whether the price denied."""
    gate, shown = gate_pass.gate, verdict.shown
    if gate is None or shown is None:
        return verdict
    by_load = gate_pass.denied_by_price(verdict.outcomes, shown, cost)
    return msgspec.structs.replace(verdict, outcomes=gate_pass.shown(gate, verdict.outcomes), by_load=by_load)


_OF_CALLERS: dict[Refusal, Cause] = {
    Refusal.MISSING_KEY: "missing_api_key",
    Refusal.UNKNOWN_KEY: "unknown_api_key",
    Refusal.SUSPENDED: "client_suspended",
}


def cause_of_refusal(refusal: Refusal) -> Cause:
    """Why no limit was looked at."""
    return _OF_CALLERS.get(refusal, "blocked")


def cause_of_denial(verdict: Verdict) -> LimitCause:
    """Why the limit that a denial shows denies."""
    if verdict.shed_s or verdict.shown is None:
        return "reduced_capacity"
    cause = cause_of(verdict.outcomes[verdict.shown])
    return "reduced_capacity" if verdict.by_load and cause != "cost_above_limit" else cause


def cause_of(outcome: Outcome) -> LimitCause:
    """Why one limit denies, whatever a backend's load."""
    if outcome.retry_us == NEVER:
        return "cost_above_limit"
    if outcome.remaining == UNKNOWN:
        return "cannot_decide"
    return "too_few_left" if outcome.remaining else "used_up"
