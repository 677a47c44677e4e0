"""What is decided when the store gives no answer: each limit by its own ``on_store_failure``."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from contract.limits import LimitRule, OnStoreFailure, capacity
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


class LastResort:
    """Decides in the node's memory, by the same pure rules, against this node's part of each limit."""

    def __init__(self, counters: LocalCounters, membership: Membership, max_accounts: int = 100_000) -> None:
        self._counters = counters
        self._membership = membership
        self._max_accounts = max_accounts
        self._unasked = LocalCounters(max_accounts)
        self._accounts: OrderedDict[bytes, tuple[LimitRule, bytes]] = OrderedDict()
        """Counters that admitted something here: the rule they were counted by, and the store's parameters."""

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

    def close_accounts(self, now_us: int) -> list[Charge]:
        """What still counts of all that was admitted here, for the store to take; this memory is empty afterwards."""
        charges = []
        for key, (rule, params) in self._accounts.items():
            (left,) = self._counters.check([key], [rule], 0, now_us)
            used = capacity(rule) - left.remaining
            if used > 0:
                charges.append(Charge(key, params, used))
        self._accounts.clear()
        self._counters.clear()
        return charges

    def _note(self, key: bytes, rule: LimitRule, limit: BoundLimit) -> None:
        self._accounts[key] = rule, limit.params
        self._accounts.move_to_end(key)
        if len(self._accounts) > self._max_accounts:
            self._accounts.popitem(last=False)


def node_part(rule: LimitRule, nodes: int) -> LimitRule:
    """The rule with this node's part of its limit; at least 1, so that a small limit does not shut everybody out."""
    if nodes == 1 or rule.limit == 0:
        return rule
    burst = None if rule.burst is None else max(1, rule.burst // nodes)
    return msgspec.structs.replace(rule, limit=max(1, rule.limit // nodes), burst=burst)


def _without_counting(rule: LimitRule) -> Outcome:
    policy: OnStoreFailure = rule.on_store_failure
    if policy == "open":
        return Outcome(True, rule.limit, 0, 0, 0)
    return Outcome(False, 0, CLOSED_RETRY_US, CLOSED_RETRY_US, 0)
