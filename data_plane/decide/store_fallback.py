"""The store fallback: decides while the store gives no answer, each limit by its own ``on_store_failure``.

``local`` limits are decided by the store's own scripts in the node's memory, against this node's part of the limit.
What they admit is a debt to the store until it is settled.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
import structlog

from data_plane.config.limit_resolution import ResolvedLimit
from data_plane.config.limit_set import LimitSet
from data_plane.config.load_gate import GatePass
from data_plane.store.local_counters import LocalCheck, LocalCounters
from data_plane.store.packing import UNKNOWN, Outcome, encode_rule
from data_plane.store.script_host import ScriptError
from tidegate.contract.limits import LimitRule, capacity

log = structlog.get_logger()

CLOSED_RETRY_US = 1_000_000
"""Retry time of limits that fail closed. The true one is unknown; a second spares a store that restarts."""
MAX_BATCH = 64
"""Checks in one script call: they take about half a millisecond."""
MAX_PLANS = 10_000
CheckT = TypeVar("CheckT", bound="UnansweredCheck")


class Membership(Protocol):
    """Knows how many nodes decide in this region."""

    def live_nodes(self) -> int:
        """The number of live nodes as last seen, this one included; at least 1."""
        ...


class UnansweredCheck(Protocol):
    """A check that the store did not decide."""

    limit_set: LimitSet
    keys: Sequence[bytes]
    cost: int


class Debt(NamedTuple):
    """Units that one counter of the store is owed: admitted here while it was away, and still counting."""

    key: bytes
    params: bytes
    """The store's parameters of the limit."""
    cost: int
    state: bytes
    """The local counter's state up to which the debt is counted."""


class _Local(NamedTuple):
    """A counter here: the limit as this node enforces it, and as the store does."""

    params: bytes
    units: int
    """What an untouched counter has left."""
    limit: ResolvedLimit


class _Plan(NamedTuple):
    """How a given number of nodes decide the checks of one ``LimitSet`` without the store."""

    nodes: int
    places: tuple[int, ...]
    """Positions of the limits that count here."""
    locals: tuple[_Local, ...]
    params: tuple[bytes, ...]
    closed: bool
    """A limit that fails closed denies the check, so local limits consume nothing."""
    limit_set: LimitSet


class StoreFallback:
    """Decides without the store. ``soon`` calls a function on the event loop's next turn: what comes in between is
    decided in one call of the script.
    """

    def __init__(
        self,
        counters: LocalCounters,
        unasked: LocalCounters,
        membership: Membership,
        soon: Callable[[Callable[[], None]], object],
        now_us: Callable[[], int],
        max_debts: int = 100_000,
    ) -> None:
        self._counters = counters
        self._unasked = unasked
        self._membership = membership
        self._soon = soon
        self._now_us = now_us
        self._max_debts = max_debts
        self._waiting: list[tuple[_Plan, UnansweredCheck, Callable[[Any, list[Outcome], int], None]]] = []
        self._plans: dict[int, _Plan] = {}
        self._owed: OrderedDict[bytes, _Local] = OrderedDict()
        """Counters that admitted something here, as they were counted last."""
        self._paid: OrderedDict[bytes, bytes] = OrderedDict()
        """States that are settled. They still count here while their windows run: a store that comes and goes must not
        give every client a fresh limit each time."""

    def decide(self, check: CheckT, decided: Callable[[CheckT, list[Outcome], int], None]) -> None:
        """Call ``decided`` with the check, one outcome a limit and the time; at once where no limit counts locally."""
        plan = self._plan_of(check.limit_set)
        if not plan.places:
            decided(check, [_without_counting(limit.rule) for limit in check.limit_set.limits], self._now_us())
            return
        self._waiting.append((plan, check, decided))
        if len(self._waiting) == 1:
            self._soon(self._decide_waiting)
        elif len(self._waiting) >= MAX_BATCH:
            self._decide_waiting()

    def _decide_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        now_us = self._now_us()
        checks = [
            LocalCheck([check.keys[at] for at in plan.places], plan.params, 0 if plan.closed else check.cost)
            for plan, check, _ in waiting
        ]
        self._forget_paid(checks)
        try:
            answers = self._counters.check_all(checks, now_us)
        except ScriptError as error:
            log.error("local_counters_failed", error=str(error))
            answers = [[_closed() for _ in check.keys] for check in checks]
            checks = [check._replace(cost=0) for check in checks]
        for (plan, check, decided), local, outcomes in zip(waiting, checks, answers, strict=True):
            if local.cost:
                self._note(plan, local.keys, outcomes)
            decided(check, _of_all_limits(plan, outcomes), now_us)

    def _plan_of(self, limit_set: LimitSet) -> _Plan:
        nodes = self._membership.live_nodes()
        plan = self._plans.get(id(limit_set))
        if plan is None or plan.nodes != nodes:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            plan = self._plans[id(limit_set)] = _plan(limit_set, nodes)
        return plan

    def denies_unasked(
        self, gate: GatePass, limits: Sequence[ResolvedLimit], keys: Sequence[bytes], cost: int, now_us: int
    ) -> bool:
        """Whether the limits of a shed check would deny it too, by this node's own counters.

        These counters are separate: nothing was admitted, so there is no debt.
        """
        if gate.most is not None and cost > gate.most:
            return True
        nodes = self._membership.live_nodes()
        params = [encode_rule(node_part(limits[at].alone, nodes)) for at in gate.own]
        outcomes = self._unasked.check([keys[at] for at in gate.own], params, cost, now_us)
        return not all(outcome.allowed for outcome in outcomes)

    def owing(self) -> list[bytes]:
        """Counters with debts."""
        return list(self._owed)

    def debts(self, keys: Sequence[bytes], now_us: int) -> list[Debt]:
        """The debts of these counters that still count; a hundred counters take a millisecond."""
        keys = [key for key in keys if key in self._owed]
        states = {key: state for key in keys if (state := self._counters.state(key)) is not None}
        costs = self._still_owed(states, now_us)
        for key in keys:
            if costs.get(key, 0) <= 0:
                del self._owed[key]
        return [Debt(key, self._owed[key].limit.params, cost, states[key]) for key, cost in costs.items() if cost > 0]

    def still_owed(self, debts: Sequence[Debt], now_us: int) -> list[Debt]:
        """The same debts, later: units that no longer count are no longer owed."""
        costs = self._still_owed({debt.key: debt.state for debt in debts if debt.key in self._owed}, now_us)
        again = [debt._replace(cost=min(debt.cost, costs.get(debt.key, 0))) for debt in debts]
        return [debt for debt in again if debt.cost > 0]

    def paid(self, debts: Sequence[Debt]) -> None:
        """These debts were charged to the store."""
        for key, _, _, state in debts:
            self._paid[key] = state
            self._paid.move_to_end(key)
            if len(self._paid) > self._max_debts:
                self._paid.popitem(last=False)
            if self._counters.state(key) == state:
                self._owed.pop(key, None)

    def _still_owed(self, states: dict[bytes, bytes], now_us: int) -> dict[bytes, int]:
        """Units by counter that count in these states and were not settled."""
        asked = [(key, self._owed[key], state, 1) for key, state in states.items()]
        asked += [(key, self._owed[key], paid, -1) for key in states if (paid := self._paid.get(key)) is not None]
        left = self._counters.remaining([(local.params, state) for _, local, state, _ in asked], now_us)
        costs = dict.fromkeys(states, 0)
        for (key, local, _, sign), remaining in zip(asked, left, strict=True):
            costs[key] += sign * (local.units - remaining)
        return costs

    def _forget_paid(self, checks: Sequence[LocalCheck]) -> None:
        """A counter that was evicted here begins anew, with nothing settled."""
        if self._paid:
            for check in checks:
                for key in check.keys:
                    if self._counters.state(key) is None:
                        self._paid.pop(key, None)

    def _note(self, plan: _Plan, keys: Sequence[bytes], outcomes: Sequence[Outcome]) -> None:
        """A check was admitted here: its counters owe the store."""
        for local, outcome in zip(plan.locals, outcomes, strict=True):
            if not outcome.allowed and not local.limit.rule.shadow:
                return
        for key, local in zip(keys, plan.locals, strict=True):
            self._owed[key] = local
            self._owed.move_to_end(key)
        while len(self._owed) > self._max_debts:
            self._owed.popitem(last=False)


def node_part(rule: LimitRule, nodes: int) -> LimitRule:
    """The rule with this node's part of its limit; at least 1, so that a small limit still admits someone."""
    if nodes == 1 or rule.limit == 0:
        return rule
    burst = None if rule.burst is None else max(1, rule.burst // nodes)
    return msgspec.structs.replace(rule, limit=max(1, rule.limit // nodes), burst=burst)


def _plan(limit_set: LimitSet, nodes: int) -> _Plan:
    places = tuple(at for at, limit in enumerate(limit_set.limits) if limit.rule.on_store_failure == "local")
    found = []
    for at in places:
        rule = node_part(limit_set.limits[at].alone, nodes)
        found.append(_Local(encode_rule(rule), capacity(rule), limit_set.limits[at]))
    closed = any(limit.rule.on_store_failure == "closed" and not limit.rule.shadow for limit in limit_set.limits)
    return _Plan(nodes, places, tuple(found), tuple(local.params for local in found), closed, limit_set)


def _of_all_limits(plan: _Plan, counted: list[Outcome]) -> list[Outcome]:
    limits = plan.limit_set.limits
    if len(counted) == len(limits):
        return counted
    placed = dict(zip(plan.places, counted, strict=True))
    return [placed.get(at) or _without_counting(limit.rule) for at, limit in enumerate(limits)]


def _closed() -> Outcome:
    return Outcome(False, UNKNOWN, CLOSED_RETRY_US, CLOSED_RETRY_US, 0)


def _without_counting(rule: LimitRule) -> Outcome:
    return Outcome(True, rule.limit, 0, 0, 0) if rule.on_store_failure == "open" else _closed()
