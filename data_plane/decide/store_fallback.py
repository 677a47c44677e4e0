"""The store fallback: decides while the store gives no answer, each limit by its own ``on_store_failure``.

``local`` limits are decided by the store's own scripts in the node's memory, against this node's part of the limit.
What they admit is a debt to the store until it is settled.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec
import structlog

from data_plane.config.limit_resolution import ResolvedLimit
from data_plane.config.limit_set import LimitSet
from data_plane.config.load_gate import GatePass
from data_plane.store.local_counters import LocalCounters
from data_plane.store.packing import FIGURES, MOST_LIMITS, UNKNOWN, encode_check, encode_rule
from data_plane.store.script_host import ScriptError
from tidegate.contract.limits import BUCKET_ALGORITHMS, LimitRule, capacity

log = structlog.get_logger()

CLOSED_RETRY_US = 1_000_000
"""Retry time of limits that fail closed. The true one is unknown; a second spares a store that restarts."""
MAX_BATCH = 64
"""Checks in one script call: they take about half a millisecond."""
MAX_PLANS = 10_000
MAX_DEBTS = 100_000
CLOSED = (UNKNOWN, CLOSED_RETRY_US, -1 - CLOSED_RETRY_US)
"""The figures of a limit that fails closed, as the store would reply them (``packing``)."""


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

    def done(self, figures: Sequence[int], at: int, now_us: int, *, degraded: bool) -> None:
        """It is decided: from ``at`` on there are the figures of each limit, as of ``CounterCheck``."""
        ...


class Debt(NamedTuple):
    """Units that one counter of the store is owed: admitted here while it was away, and still counting."""

    key: bytes
    params: bytes
    """The store's parameters of the limit when it was counted last."""
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
    counts_all: bool
    locals: tuple[_Local, ...]
    closed: bool
    """A limit that fails closed denies the check, so local limits consume nothing."""
    params: tuple[bytes, ...]
    cost: int
    """The commonest cost, and the check of it (of 0 if ``closed``) as the script reads it."""
    packed: bytes
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
    ) -> None:
        self._counters = counters
        self._unasked = unasked
        self._membership = membership
        self._soon = soon
        self._now_us = now_us
        self._waiting: list[UnansweredCheck] = []
        self._plans: dict[int, _Plan] = {}
        self._owed: OrderedDict[bytes, tuple[_Local, int]] = OrderedDict()
        """Counters that admitted something here, as they were counted last, and the most that they can owe. A bucket
        that was raised keeps its tokens, so that what is missing in it tells more than was taken."""
        self._paid: OrderedDict[bytes, bytes] = OrderedDict()
        """States that are settled. They still count here while their windows run: a store that comes and goes must not
        give every client a fresh limit each time."""

    def decide(self, check: UnansweredCheck) -> None:
        """Call ``check.done`` at the end of this turn, or now where many wait."""
        self._waiting.append(check)
        if len(self._waiting) == 1:
            self._soon(self._decide_waiting)
        elif len(self._waiting) >= MAX_BATCH:
            self._decide_waiting()

    def _decide_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        now_us, nodes = self._now_us(), self._membership.live_nodes()
        plans: list[_Plan] = []
        keys: list[bytes] = []
        packed: list[bytes] = []
        for check in waiting:
            plan = self._plans.get(id(check.limit_set))
            if plan is None or plan.nodes != nodes:
                plan = self._plan_of(check.limit_set, nodes)
            plans.append(plan)
            if plan.places:
                keys += check.keys if plan.counts_all else [check.keys[at] for at in plan.places]
                packed.append(
                    plan.packed if check.cost == plan.cost or plan.closed else encode_check(check.cost, plan.params)
                )
        figures: Sequence[int] = ()
        counted = False
        if keys:
            figures, counted = self._counted(keys, packed, now_us)
        at, key_at = 1, 0
        for check, plan in zip(waiting, plans, strict=True):
            count = len(plan.places)
            if counted and count and check.cost and not plan.closed:
                self._note(plan, keys, key_at, figures, at, check.cost)
            if plan.counts_all:
                check.done(figures, at, now_us, degraded=True)
            else:
                check.done(_of_all_limits(plan, figures, at, now_us), 1, now_us, degraded=True)
            at += FIGURES * count
            key_at += count

    def _counted(self, keys: list[bytes], packed: list[bytes], now_us: int) -> tuple[Sequence[int], bool]:
        """The script's reply, and whether it counted: after an error every limit is closed."""
        if self._paid:
            self._forget_paid(keys)
        try:
            return self._counters.decide(keys, packed, now_us), True
        except ScriptError as error:
            log.error("local_counters_failed", error=str(error))
            return (now_us, *CLOSED * len(keys)), False

    def _plan_of(self, limit_set: LimitSet, nodes: int) -> _Plan:
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
        found = [(key, *self._owed[key], cost) for key, cost in costs.items() if cost > 0]
        return [Debt(key, local.limit.params, min(cost, most), states[key]) for key, local, most, cost in found]

    def still_owed(self, debts: Sequence[Debt], now_us: int) -> list[Debt]:
        """The same debts, later: units that no longer count are no longer owed."""
        costs = self._still_owed({debt.key: debt.state for debt in debts if debt.key in self._owed}, now_us)
        again = [debt._replace(cost=min(debt.cost, costs.get(debt.key, 0))) for debt in debts]
        return [debt for debt in again if debt.cost > 0]

    def paid(self, debts: Sequence[Debt]) -> None:
        """These debts were charged to the store."""
        for key, _, cost, state in debts:
            self._paid[key] = state
            self._paid.move_to_end(key)
            if len(self._paid) > MAX_DEBTS:
                self._paid.popitem(last=False)
            owed = self._owed.pop(key, None)
            if owed is not None and self._counters.state(key) != state:
                self._owed[key] = owed[0], owed[1] - cost

    def _still_owed(self, states: dict[bytes, bytes], now_us: int) -> dict[bytes, int]:
        """Units by counter that count in these states and were not settled."""
        asked = [(key, self._owed[key][0], state, 1) for key, state in states.items()]
        asked += [(key, self._owed[key][0], paid, -1) for key in states if (paid := self._paid.get(key)) is not None]
        left = self._counters.remaining([(local.params, state) for _, local, state, _ in asked], now_us)
        costs = dict.fromkeys(states, 0)
        for (key, local, _, sign), remaining in zip(asked, left, strict=True):
            costs[key] += sign * (local.units - remaining)
        return costs

    def _forget_paid(self, keys: Sequence[bytes]) -> None:
        """A counter that was evicted here begins anew, with nothing settled."""
        for key in keys:
            if self._counters.state(key) is None:
                self._paid.pop(key, None)

    def _note(
        self, plan: _Plan, keys: Sequence[bytes], key_at: int, figures: Sequence[int], at: int, cost: int
    ) -> None:  # fmt: skip
        """If a check was admitted here, its counters owe the store."""
        for local in plan.locals:
            if figures[at + 2] < 0 and not local.limit.rule.shadow:
                return
            at += FIGURES
        owed = self._owed
        for local in plan.locals:
            key = keys[key_at]
            before = owed.pop(key, None)
            owed[key] = local, cost if before is None else before[1] + cost
            key_at += 1
        while len(owed) > MAX_DEBTS:
            owed.popitem(last=False)


def node_part(rule: LimitRule, nodes: int) -> LimitRule:
    """The rule with this node's part of its limit; at least 1, so that a small limit still admits someone."""
    if nodes == 1 or rule.limit == 0:
        return rule
    burst = None
    if rule.algorithm in BUCKET_ALGORITHMS:
        # of a leaky bucket's capacity one is served while the others wait
        burst = max(1, capacity(rule) // nodes) - (rule.algorithm == "leaky_bucket")
    return msgspec.structs.replace(rule, limit=max(1, rule.limit // nodes), burst=burst)


def _plan(limit_set: LimitSet, nodes: int) -> _Plan:
    places = tuple(at for at, limit in enumerate(limit_set.limits) if limit.rule.on_store_failure == "local")
    if len(places) > MOST_LIMITS:  # no call can carry them, so they are closed
        places = ()
    found = []
    for at in places:
        rule = node_part(limit_set.limits[at].alone, nodes)
        found.append(_Local(encode_rule(rule), capacity(rule), limit_set.limits[at]))
    closed = any(limit.rule.on_store_failure == "closed" and not limit.rule.shadow for limit in limit_set.limits)
    params = tuple(local.params for local in found)
    cost = 0 if closed else limit_set.unit_cost
    counts_all = bool(places) and len(places) == len(limit_set.limits)
    return _Plan(nodes, places, counts_all, tuple(found), closed, params, cost, encode_check(cost, params), limit_set)


def _of_all_limits(plan: _Plan, figures: Sequence[int], at: int, now_us: int) -> Sequence[int]:
    """The reply to one check: figures of all limits, of which those that count here begin at ``at``."""
    found = [now_us]
    for place, limit in enumerate(plan.limit_set.limits):
        if place in plan.places:
            found += figures[at : at + FIGURES]
            at += FIGURES
        else:
            found += (limit.rule.limit, 0, 0) if limit.rule.on_store_failure == "open" else CLOSED
    return found
