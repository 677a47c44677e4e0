"""Holds: the units of a lease or a reservation, in the form that its owner keeps (signed by ``signatures``). Pure.

A hold names the counters that gave the units and when, so that any node of the region can give them back. The store
remembers only that a hold has ended.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from data_plane.config.limit_resolution import ResolvedLimit
from data_plane.store.packing import Outcome
from tidegate.contract.limits import WINDOW_ALGORITHMS

Kind = Literal["lease", "reservation"]

LEASES_PER_LIMIT = 10
"""A lease takes at most a tenth of a limit, so that no holder starves the others."""
_PARAMETERS_ARE_OF_A_LOG = 2


class InvalidHoldError(ValueError):
    """Not a hold that a node of this region signed."""


class Hold(msgspec.Struct, frozen=True, array_like=True):
    """``units`` of ``unit_cost`` each, taken at ``charged_us`` (the store's clock) from ``keys`` under ``params``.

    It ends at ``until_us`` (the node's clock); units that come back later are lost.
    """

    kind: Kind
    id: bytes
    units: int
    unit_cost: int
    charged_us: int
    until_us: int
    keys: tuple[bytes, ...]
    params: tuple[bytes, ...]
    client: str = ""
    key_id: str = ""
    endpoint: str = ""
    """Client, key and endpoint: units that come back are taken off their usage."""
    clocks_us: tuple[int, ...] = ()
    """``charged_us`` of each key, if the keys are in several slots of a Cluster."""

    def charged_at_us(self, place: int) -> int:
        """When the key at ``place`` was charged."""
        return self.clocks_us[place] if self.clocks_us else self.charged_us


def why_not_leasable(limits: Sequence[ResolvedLimit]) -> str | None:
    """Why units of these limits cannot be spent later than they were taken, or ``None``.

    A log dates each admission and a queue gives each request its turn; spending later would break both rules.
    """
    for limit in limits:
        if limit.rule.algorithm == "sliding_log":
            return f"limit {limit.rule.name}: a sliding log counts each request at its own time"
        if limit.rule.algorithm == "leaky_bucket":
            return f"limit {limit.rule.name}: a queue gives each request its own turn"
    return None


def first_attempt(wanted: int, unit_cost: int, limits: Sequence[ResolvedLimit]) -> int:
    """How many of the wanted units to try first. Shadow limits matter only without other limits."""
    asked = [limit for limit in limits if not limit.rule.shadow] or limits
    max_units = min(limit.rule.limit // LEASES_PER_LIMIT // unit_cost for limit in asked)
    return max(1, min(wanted, max_units))


def next_attempt(asked: int, unit_cost: int, limits: Sequence[ResolvedLimit], outcomes: Sequence[Outcome]) -> int:
    """How many units to try after a denial of ``asked``: at most half of what is left, so that others get some."""
    left = [
        outcome.remaining
        for limit, outcome in zip(limits, outcomes, strict=True)
        if not outcome.allowed and not limit.rule.shadow
    ]
    return max(1, min([asked // 2, *(remaining // unit_cost // 2 for remaining in left)]))


def spend_within_us(ttl_us: int, limits: Sequence[ResolvedLimit], outcomes: Sequence[Outcome]) -> int:
    """How long units may be spent: until the end of the window that they were counted in at most."""
    ends = [
        outcome.reset_us
        for limit, outcome in zip(limits, outcomes, strict=True)
        if limit.rule.algorithm in WINDOW_ALGORITHMS
    ]
    return min([ttl_us, *ends])


def is_of_log(params: bytes) -> bool:
    """Whether script parameters (``packing.encode_rule``) are a sliding log's."""
    return params[0] % 8 == _PARAMETERS_ARE_OF_A_LOG
