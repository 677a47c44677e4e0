"""The store fallback: decides while the store gives no answer, each limit by its own ``on_store_failure``.

``local`` limits are decided by the store's own scripts in the node's memory, against this node's part of the limit.
What they admit is a debt to the store until it is settled.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog

from data_plane.config.limit_resolution import ResolvedLimit
from data_plane.config.limit_set import LimitSet
from data_plane.config.load_gate import GatePass
from data_plane.decide.debts import Debts, LocalLimit
from data_plane.decide.pending_check import PendingCheck
from data_plane.store.local_counters import LocalCounters
from data_plane.store.packing import FIGURES, MOST_LIMITS, UNKNOWN, encode_check, encode_rule
from data_plane.store.script_host import ScriptError
from tidegate.contract.limits import LimitRule, capacity, part_of

log = structlog.get_logger()

CLOSED_RETRY_US = 1_000_000
"""Retry time of limits that fail closed. The true one is unknown; a second spares a store that restarts."""
MAX_BATCH = 64
"""Checks in one script call: they take about half a millisecond."""
MAX_SETS = 10_000
CLOSED = (UNKNOWN, CLOSED_RETRY_US, -1 - CLOSED_RETRY_US)
"""The figures of a limit that fails closed, as the store would reply them (``packing``)."""


class _LocalSet(NamedTuple):
    """A limit set as each of so many nodes decides it without the store."""

    nodes: int
    counted: tuple[LocalLimit, ...]
    others: tuple[Sequence[int], ...]
    """The figures of limits that count nothing here, each in its place; empty in the places of those that count."""
    closed: bool
    """A limit that fails closed denies the check, so local limits consume nothing."""
    cost: int
    """The commonest cost, and the check of it (of 0 if ``closed``) as the script reads it."""
    packed: bytes


class StoreFallback:
    """Decides without the store, as one of ``live_nodes()`` nodes of the region: at least 1, this one.

    ``soon`` calls a function on the event loop's next turn: what comes in between is decided in one call of the script.
    """

    def __init__(
        self,
        counters: LocalCounters,
        unasked: LocalCounters,
        live_nodes: Callable[[], int],
        soon: Callable[[Callable[[], None]], object],
        now_us: Callable[[], int],
    ) -> None:
        self._counters = counters
        self._unasked = unasked
        self._live_nodes = live_nodes
        self._soon = soon
        self._now_us = now_us
        self._waiting: list[PendingCheck] = []
        self._sets: dict[LimitSet, _LocalSet] = {}
        self.debts = Debts(counters)

    def decide(self, check: PendingCheck) -> None:
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
        now_us, nodes = self._now_us(), self._live_nodes()
        sets: list[_LocalSet] = []
        keys: list[bytes] = []
        packed: list[bytes] = []
        for check in waiting:
            local = self._sets.get(check.limit_set)
            if local is None or local.nodes != nodes:
                local = self._new_local_set(check.limit_set, nodes)
            sets.append(local)
            if local.counted:
                keys += [check.keys[limit.place] for limit in local.counted] if local.others else check.keys
                if check.cost == local.cost or local.closed:
                    packed.append(local.packed)
                else:
                    packed.append(encode_check(check.cost, [limit.params for limit in local.counted]))
        figures, has_counted = self._counted(keys, packed, now_us) if keys else ((), False)
        at = 1
        for check, local in zip(waiting, sets, strict=True):
            if has_counted and check.cost and not local.closed:
                self._note_debts(check, local.counted, figures, at)
            if local.others:
                check.done(_of_all_limits(local, figures, at, now_us), 1, now_us, degraded=True)
            else:
                check.done(figures, at, now_us, degraded=True)
            at += FIGURES * len(local.counted)

    def _counted(self, keys: list[bytes], packed: list[bytes], now_us: int) -> tuple[Sequence[int], bool]:
        """The script's reply, and whether it counted: after an error every limit is closed."""
        self.debts.forget_evicted(keys)
        try:
            return self._counters.decide(keys, packed, now_us), True
        except ScriptError as error:
            log.error("local_counters_failed", error=str(error))
            return (now_us, *CLOSED * len(keys)), False

    def _note_debts(self, check: PendingCheck, counted: Sequence[LocalLimit], figures: Sequence[int], at: int) -> None:
        """If a check was admitted here, its counters owe the store."""
        for limit in counted:
            if figures[at + 2] < 0 and not limit.resolved.rule.shadow:
                return
            at += FIGURES
        self.debts.add(check.keys, counted, check.cost)

    def _new_local_set(self, limit_set: LimitSet, nodes: int) -> _LocalSet:
        if len(self._sets) >= MAX_SETS:
            self._sets.clear()
        local = self._sets[limit_set] = _local_set(limit_set, nodes)
        return local

    def denies_unasked(
        self, gate: GatePass, limits: Sequence[ResolvedLimit], keys: Sequence[bytes], cost: int, now_us: int
    ) -> bool:
        """Whether the limits of a shed check would deny it too, by this node's own counters.

        These counters are separate: nothing was admitted, so there is no debt.
        """
        if gate.most is not None and cost > gate.most:
            return True
        nodes = self._live_nodes()
        params = [encode_rule(node_part(limits[at].alone, nodes)) for at in gate.own]
        outcomes = self._unasked.check([keys[at] for at in gate.own], params, cost, now_us)
        return not all(outcome.allowed for outcome in outcomes)


def node_part(rule: LimitRule, nodes: int) -> LimitRule:
    """The rule with this node's part of its limit; at least 1, so that a small limit still admits someone."""
    if nodes == 1 or rule.limit == 0:
        return rule
    return part_of(rule, max(1, rule.limit // nodes), max(1, capacity(rule) // nodes))


def _local_set(limit_set: LimitSet, nodes: int) -> _LocalSet:
    limits = limit_set.limits
    places = [place for place, limit in enumerate(limits) if limit.rule.on_store_failure == "local"]
    if len(places) > MOST_LIMITS:  # no call can carry them, so they are closed
        places = []
    counted = tuple(LocalLimit(at, encode_rule(node_part(limits[at].alone, nodes)), limits[at]) for at in places)
    others = tuple(() if place in places else _figures(limit.rule) for place, limit in enumerate(limits))
    closed = any(limit.rule.on_store_failure == "closed" and not limit.rule.shadow for limit in limits)
    cost = 0 if closed else limit_set.unit_cost
    packed = encode_check(cost, [limit.params for limit in counted])
    return _LocalSet(nodes, counted, others if any(others) else (), closed, cost, packed)


def _figures(rule: LimitRule) -> Sequence[int]:
    """The figures of a limit that counts nothing here."""
    return (rule.limit, 0, 0) if rule.on_store_failure == "open" else CLOSED


def _of_all_limits(local: _LocalSet, figures: Sequence[int], at: int, now_us: int) -> Sequence[int]:
    """The reply to one check: figures of all limits, of which those that count here begin at ``at``."""
    found = [now_us]
    for other in local.others:
        found += other or figures[at : at + FIGURES]
        at += 0 if other else FIGURES
    return found
