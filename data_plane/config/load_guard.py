"""Protection of backends in the rulebook: their capacities as limits, and the gate passes of their clients."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from data_plane.config.limit_resolution import ResolvedLimit
from data_plane.config.load_gate import BY_CLASS, BY_OPEN, BY_WHOLE, Charged, GatePass
from tidegate.contract.limits import LimitRule, capacity
from tidegate.contract.load import CAPACITY, OPEN, AdaptivePolicy, Backend, Capacity, Reporter, capacity_rule


class Guard(NamedTuple):
    """The protection of a backend from clients of one priority."""

    backend: str
    policy: AdaptivePolicy
    priority: int

    def gate_pass(self, limits: tuple[ResolvedLimit, ...], params: tuple[bytes, ...]) -> GatePass:
        """The gate pass of requests under ``limits``; limits that follow the policy are priced by load."""
        charged, own, most = [], [], None
        for place, limit in enumerate(limits):
            if is_capacity(limit.rule):
                held = capacity(limit.rule)
                most = held if most is None else min(most, held)
            elif not limit.rule.shadow:
                own.append(place)
            factor = pricing_factor(limit.rule, self.policy) if limit.rule.adaptive == self.policy.policy else None
            if factor is not None:
                charged.append(Charged(place, factor, capacity(limit.rule)))
        policy = self.policy
        return GatePass(
            self.backend, policy.policy, self.priority, policy.retry_after_s, params=params, charged=charged,
            own=own, most=most,
        )  # fmt: skip


def protected(
    backends: Mapping[str, Backend], policies: Mapping[str, AdaptivePolicy]
) -> dict[str, tuple[Backend, AdaptivePolicy]]:
    """Backends whose adaptive policy exists, each with that policy."""
    found = ((backend, policies.get(backend.adaptive or "")) for backend in backends.values())
    return {backend.backend: (backend, policy) for backend, policy in found if policy is not None}


def reporters_by_hash(reporters: Iterable[Reporter]) -> dict[str, Reporter]:
    """Reporters by the SHA-256 (hex) of their credentials, those from before the last rotation included."""
    found = {}
    for reporter in reporters:
        if reporter.previous_sha256 is not None:
            found[reporter.previous_sha256] = reporter
        found[reporter.sha256] = reporter
    return found


def capacity_rules(backend: Backend, policy: AdaptivePolicy | None, priority: int, region: str) -> list[LimitRule]:
    """A backend's limits for a class: its capacity, and for classes that are not critical its open part."""
    if backend.capacity is None:
        return []
    whole = capacity_rule(backend.capacity, region, backend.adaptive)
    if policy is None or not policy.reserve or policy.critical is None or priority >= policy.critical:
        return [whole]
    return [whole, open_rule(whole, backend.capacity, policy)]


def pricing_factor(rule: LimitRule, policy: AdaptivePolicy) -> int | None:
    """Which factor prices a limit that follows ``policy``; ``None`` for the plain cost.

    With a reserve the price is on the open part, and the critical class is cut by its own factor alone.
    """
    if rule.name == OPEN:
        return BY_OPEN
    if rule.name == CAPACITY and rule.scope == "backend":
        return None if policy.reserve else BY_WHOLE
    return BY_CLASS


def is_capacity(rule: LimitRule) -> bool:
    """Whether a limit is a backend's capacity, or the open part of it."""
    return rule.scope == "backend" and rule.name in {CAPACITY, OPEN}


def open_rule(whole: LimitRule, capacity: Capacity, policy: AdaptivePolicy) -> LimitRule:
    """The part of a capacity that is not reserved for the critical class."""
    limit = max(1, round(capacity.limit * (1.0 - policy.reserve)))
    burst = None if capacity.burst is None else max(1, round(capacity.burst * (1.0 - policy.reserve)))
    return msgspec.structs.replace(
        whole,
        id=capacity.open_id,
        name=OPEN,
        limit=limit,
        burst=burst,
        shares=dict.fromkeys(whole.shares, limit),
    )
