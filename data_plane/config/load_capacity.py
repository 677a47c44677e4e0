"""A backend's capacity as limits of the rulebook: one for all, and one for what is not critical."""

import msgspec

from data_plane.config.load_gate import BY_CLASS, BY_OPEN, BY_WHOLE
from tidegate.contract.limits import LimitRule
from tidegate.contract.load import CAPACITY, OPEN, AdaptivePolicy, Backend, Capacity, capacity_rule


def capacity_rules(backend: Backend, policy: AdaptivePolicy | None, priority: int, region: str) -> list[LimitRule]:
    """The limits that a class meets at this backend: its capacity, and unless it is critical what is open to all."""
    if backend.capacity is None:
        return []
    whole = capacity_rule(backend.capacity, region, backend.adaptive)
    if policy is None or not policy.reserve or policy.critical is None or priority >= policy.critical:
        return [whole]
    return [whole, open_rule(whole, backend.capacity, policy)]


def price_of(rule: LimitRule, policy: AdaptivePolicy) -> int | None:
    """Which factor prices a limit that follows ``policy``; ``None``: it costs what it says.

    With a reserve the price is on the open part, and what is critical is cut by its class alone.
    """
    if rule.name == OPEN:
        return BY_OPEN
    if rule.name == CAPACITY and rule.scope == "backend":
        return None if policy.reserve else BY_WHOLE
    return BY_CLASS


def is_capacity(rule: LimitRule) -> bool:
    """Whether a limit is a backend's capacity, or the open part of it, and nobody's own."""
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
