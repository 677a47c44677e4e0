"""What is decided when the store gives no answer: each limit by its own ``on_store_failure``."""

from typing import Protocol

import msgspec

from contract.limits import LimitRule, OnStoreFailure
from data_plane.domain.check import Prepared
from data_plane.domain.local_counters import LocalCounters
from data_plane.domain.outcome import Outcome

CLOSED_RETRY_US = 1_000_000
"""When a limit that fails closed suggests to come back: nobody can know, a second is polite to a store that restarts."""


class Membership(Protocol):
    """Who else decides in this region."""

    def live_nodes(self) -> int:
        """The number of live nodes as last known, this one included; at least 1."""
        ...


class LastResort:
    """Decides in the node's memory, by the same pure rules, against this node's part of each limit."""

    def __init__(self, counters: LocalCounters, membership: Membership) -> None:
        self._counters = counters
        self._membership = membership

    def outcomes(self, prepared: Prepared, now_us: int) -> list[Outcome]:
        """One outcome a limit. If a limit that fails closed denies, the local ones are only looked at."""
        limits = prepared.bound.limits
        policies = [limit.rule.on_store_failure for limit in limits]
        closed = any(
            policy == "closed" and not limit.rule.shadow for policy, limit in zip(policies, limits, strict=True)
        )
        nodes = self._membership.live_nodes()
        local = [at for at, policy in enumerate(policies) if policy == "local"]
        keys = prepared.keys()
        counted = self._counters.check(
            [keys[at] for at in local],
            [node_part(limits[at].rule, nodes) for at in local],
            0 if closed else prepared.cost,
            now_us,
        )
        answers = iter(counted)
        return [
            next(answers) if policy == "local" else _without_counting(policy, limit.rule.limit)
            for policy, limit in zip(policies, limits, strict=True)
        ]


def node_part(rule: LimitRule, nodes: int) -> LimitRule:
    """The rule with this node's part of its limit; at least 1, so that a small limit does not shut everybody out."""
    if nodes == 1 or rule.limit == 0:
        return rule
    burst = None if rule.burst is None else max(1, rule.burst // nodes)
    return msgspec.structs.replace(rule, limit=max(1, rule.limit // nodes), burst=burst)


def _without_counting(policy: OnStoreFailure, limit: int) -> Outcome:
    if policy == "open":
        return Outcome(True, limit, 0, 0, 0)
    return Outcome(False, 0, CLOSED_RETRY_US, CLOSED_RETRY_US, 0)
