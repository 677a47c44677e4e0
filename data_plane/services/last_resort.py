"""What is decided when the store gives no answer: each limit by its own ``on_store_failure``."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from contract.limits import LimitRule, OnStoreFailure, capacity
from data_plane.domain.algorithms import State, evaluate
from data_plane.domain.bindings import BoundLimit
from data_plane.domain.check import Prepared
from data_plane.domain.load.gate import GatePass
from data_plane.domain.local_counters import LocalCounters
from data_plane.domain.outcome import UNKNOWN, Outcome

CLOSED_RETRY_US = 1_000_000
"""When a limit that fails closed suggests to come back: nobody knows; a second is polite to a store that restarts."""


class Membership(Protocol):
    """Who else decides in this region."""

    def live_nodes(self) -> int:
        """The number of live nodes as last known, this one included; at least 1."""
        ...


class Charge(NamedTuple):
    """What one counter of the store owes for the time it was away: units admitted here that still count."""

    key: bytes
    params: bytes
    cost: int
    state: State
    """Up to where that is counted: what comes later is another charge."""


class _Account(NamedTuple):
    """A counter that admitted something here: the rule it was counted by, and the store's parameters."""

    rule: LimitRule
    params: bytes


class LastResort:
    """Decides in the node's memory, by the same pure rules, against this node's part of each limit."""

    def __init__(self, counters: LocalCounters, membership: Membership, max_accounts: int = 100_000) -> None:
        self._counters = counters
        self._membership = membership
        self._max_accounts = max_accounts
        self._unasked = LocalCounters(max_accounts)
        self._accounts: OrderedDict[bytes, _Account] = OrderedDict()
        """What the store is owed for."""
        self._paid: OrderedDict[bytes, State] = OrderedDict()
        """What it knows already. That counts here all the same while its window runs: a store that comes and goes, or
        is late for one decision in ten, must not give everybody a new beginning each time."""

    def outcomes(self, prepared: Prepared, keys: Sequence[bytes], now_us: int) -> list[Outcome]:
        """One outcome a limit. If a limit that fails closed denies, the local ones are only looked at."""
        limits = prepared.bound.limits
        nodes = self._membership.live_nodes()
        closed = any(limit.rule.on_store_failure == "closed" and not limit.rule.shadow for limit in limits)
        local = [at for at, limit in enumerate(limits) if limit.rule.on_store_failure == "local"]
        rules = [node_part(limits[at].alone, nodes) for at in local]
        cost = 0 if closed else prepared.cost
        for at in local if self._paid else ():
            if self._counters.peek(keys[at]) is None:  # it gave way to others
                self._paid.pop(keys[at], None)
        counted = self._counters.check([keys[at] for at in local], rules, cost, now_us)
        if cost and all(outcome.allowed or rule.shadow for outcome, rule in zip(counted, rules, strict=True)):
            for at, rule in zip(local, rules, strict=True):
                self._note(keys[at], rule, limits[at])
        answers = iter(counted)
        return [
            next(answers) if limit.rule.on_store_failure == "local" else _without_counting(limit.rule)
            for limit in limits
        ]

    def denies_unasked(
        self, gate: GatePass, limits: Sequence[BoundLimit], keys: Sequence[bytes], cost: int, now_us: int
    ) -> bool:
        """Whether its own limits would deny what was shed, as far as this node can tell by itself.

        Counted apart: nothing was admitted, so nothing is owed.
        """
        if gate.most is not None and cost > gate.most:
            return True
        nodes = self._membership.live_nodes()
        rules = [node_part(limits[at].alone, nodes) for at in gate.own]
        outcomes = self._unasked.check([keys[at] for at in gate.own], rules, cost, now_us)
        return not all(outcome.allowed for outcome in outcomes)

    def owing(self) -> bool:
        """Whether something was admitted here that the store does not know."""
        return bool(self._accounts)

    def charges(self, now_us: int) -> list[Charge]:
        """What still counts of all that was admitted here and was not ``paid``, for the store to take."""
        charges = []
        for key, account in list(self._accounts.items()):
            state = self._counters.state(key, now_us)
            cost = self._owed(key, account.rule, state, now_us)
            if state is None or cost <= 0:
                del self._accounts[key]
            else:
                charges.append(Charge(key, account.params, cost, state))
        return charges

    def still_owed(self, charges: Sequence[Charge], now_us: int) -> list[Charge]:
        """The same charges again, later: what does not count any more is not owed any more."""
        accounts = [(charge, self._accounts.get(charge.key)) for charge in charges]
        again = [
            charge._replace(cost=min(charge.cost, self._owed(charge.key, account.rule, charge.state, now_us)))
            for charge, account in accounts
            if account is not None
        ]
        return [charge for charge in again if charge.cost > 0]

    def paid(self, charges: Sequence[Charge]) -> None:
        """The store knows of these."""
        for key, _, _, state in charges:
            self._paid[key] = state
            self._paid.move_to_end(key)
            if len(self._paid) > self._max_accounts:
                self._paid.popitem(last=False)
            if self._counters.peek(key) is state:
                self._accounts.pop(key, None)

    def _owed(self, key: bytes, rule: LimitRule, state: State | None, now_us: int) -> int:
        return _used(rule, state, now_us) - _used(rule, self._paid.get(key), now_us)

    def _note(self, key: bytes, rule: LimitRule, limit: BoundLimit) -> None:
        self._accounts[key] = _Account(rule, limit.params)
        self._accounts.move_to_end(key)
        if len(self._accounts) > self._max_accounts:
            self._accounts.popitem(last=False)


def node_part(rule: LimitRule, nodes: int) -> LimitRule:
    """The rule with this node's part of its limit; at least 1, so that a small limit does not shut everybody out."""
    if nodes == 1 or rule.limit == 0:
        return rule
    burst = None if rule.burst is None else max(1, rule.burst // nodes)
    return msgspec.structs.replace(rule, limit=max(1, rule.limit // nodes), burst=burst)


def _used(rule: LimitRule, state: State | None, now_us: int) -> int:
    return capacity(rule) - evaluate(rule, state, 0, now_us).untouched.remaining


def _without_counting(rule: LimitRule) -> Outcome:
    policy: OnStoreFailure = rule.on_store_failure
    if policy == "open":
        return Outcome(True, rule.limit, 0, 0, 0)
    return Outcome(False, UNKNOWN, CLOSED_RETRY_US, CLOSED_RETRY_US, 0)
