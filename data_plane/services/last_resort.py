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
from data_plane.domain.outcome import Outcome

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
    paid: State | None = None
    """What the store knows of it already."""


class LastResort:
    """Decides in the node's memory, by the same pure rules, against this node's part of each limit."""

    def __init__(self, counters: LocalCounters, membership: Membership, max_accounts: int = 100_000) -> None:
        self._counters = counters
        self._membership = membership
        self._max_accounts = max_accounts
        self._unasked = LocalCounters(max_accounts)
        self._accounts: OrderedDict[bytes, _Account] = OrderedDict()

    def outcomes(self, prepared: Prepared, keys: Sequence[bytes], now_us: int) -> list[Outcome]:
        """One outcome a limit. If a limit that fails closed denies, the local ones are only looked at."""
        limits = prepared.bound.limits
        nodes = self._membership.live_nodes()
        closed = any(limit.rule.on_store_failure == "closed" and not limit.rule.shadow for limit in limits)
        local = [at for at, limit in enumerate(limits) if limit.rule.on_store_failure == "local"]
        rules = [node_part(limits[at].alone, nodes) for at in local]
        cost = 0 if closed else prepared.cost
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
        """What still counts of all that was admitted here, for the store to take. It counts here until it was ``paid``:
        a store that goes away again before that must not find everybody a new beginning.
        """
        charges = []
        for key, account in list(self._accounts.items()):
            state = self._counters.state(key, now_us)
            if state is None or (cost := self._owed(account, state, now_us)) <= 0:
                self._forget(key)
            else:
                charges.append(Charge(key, account.params, cost, state))
        return charges

    def still_owed(self, charges: Sequence[Charge], now_us: int) -> list[Charge]:
        """The same charges again, later: what does not count any more is not owed any more."""
        accounts = [(charge, self._accounts.get(charge.key)) for charge in charges]
        again = [
            charge._replace(cost=min(charge.cost, self._owed(account, charge.state, now_us)))
            for charge, account in accounts
            if account is not None
        ]
        return [charge for charge in again if charge.cost > 0]

    def paid(self, charges: Sequence[Charge]) -> None:
        """The store knows of these."""
        for key, _, _, state in charges:
            account = self._accounts.get(key)
            if account is None or self._counters.peek(key) is state:
                self._forget(key)
            else:
                self._accounts[key] = account._replace(paid=state)

    def _owed(self, account: _Account, state: State, now_us: int) -> int:
        return _used(account.rule, state, now_us) - _used(account.rule, account.paid, now_us)

    def _forget(self, key: bytes) -> None:
        self._accounts.pop(key, None)
        self._counters.forget(key)

    def _note(self, key: bytes, rule: LimitRule, limit: BoundLimit) -> None:
        account = self._accounts.get(key)
        self._accounts[key] = _Account(rule, limit.params, None if account is None else account.paid)
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
    return Outcome(False, 0, CLOSED_RETRY_US, CLOSED_RETRY_US, 0)
