"""Limit resolution: the limits that apply to a plan on a route, with their script parameters and key builders."""

import struct
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

import msgspec

from data_plane.config.counter_keys import key_builder
from data_plane.config.strict_limits import moves_rights, only_from_us, own_params_of, scaled, strict_params_of
from data_plane.store.packing import RULE, SHARED, UNREACHABLE, encode_rule, head_of
from data_plane.store.strict_packing import StrictParams
from data_plane.store.subjects import ordered_dimensions
from tidegate.contract.config import Endpoint
from tidegate.contract.limits import (
    BUCKET_ALGORITHMS,
    MAX_SLIDING_LOG_LIMIT,
    LimitRule,
    capacity,
    exact_rate,
    is_visible,
    nominal_window_us,
    part_of,
    violations,
)

SITE_FACTOR = 16
KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"})

_SAME = {"HEAD": ("HEAD", "GET")}
"""A HEAD is routed and limited like a GET, as it does the same work (RFC 9110, 9.3.2)."""

_SIZE = struct.Struct("<H")
_ALL_SHARES = struct.Struct("<d")
_PEER = struct.Struct("<dd")


class RegionFacts(NamedTuple):
    """The state of the region by which limits are resolved.

    ``revision`` is that of the shares; ``rights`` says that rights of strict limits move here. ``unreachable`` peers
    have the instant (microseconds) since when; it is the same on every node. ``at_us`` is an instant that has passed:
    by it a region that keeps to its shares knows those that are over.
    """

    revision: int = 0
    rights: bool = False
    unreachable: tuple[tuple[str, int], ...] = ()
    at_us: int = 0


class ResolvedLimit:
    """One limit as it applies to requests on a route, packed in one of four ways.

    With rights that move between regions, with those of a part that cannot move, with counts that other regions get, or
    as this region's alone.
    """

    __slots__ = (
        "alone",
        "attributes",
        "denials_last",
        "key_builder",
        "params",
        "policy",
        "rule",
        "strict",
        "visible",
        "window_s",
    )

    def __init__(
        self, whole: LimitRule, endpoint: Endpoint, region: str, regions: Mapping[str, object], facts: RegionFacts, *,
        of_site: bool = False,
    ) -> None:  # fmt: skip
        is_shared = whole.mode == "shared" and len(regions) > 1
        part = in_region(whole, region, facts.at_us)
        self.alone = of_whole_site(part) if of_site else part
        """The rule by which this region decides without other regions, and without its store."""
        rule = self.alone
        self.strict: StrictParams | None = None
        """Where the remaining units are rights of this region, in the current epoch of its store."""
        if facts.rights and moves_rights(whole):
            rule = of_whole_site(whole) if of_site else whole
            self.strict = strict_params_of(rule, region, facts.revision)
        elif facts.rights and rule.mode == "strict" and rule.limit > 0:
            self.strict = own_params_of(whole, rule, facts.revision)
        self.rule = rule
        if self.strict is not None:
            self.params = self.strict.decide()
        else:
            self.params = shared_params(rule, facts, regions) if is_shared else encode_rule(rule)
        self.denials_last = not (rule.shadow or rule.mode == "strict" or is_shared)
        self.key_builder = key_builder(rule, endpoint, of_site=of_site)
        self.visible = is_visible(rule)
        window_us = nominal_window_us(rule)
        self.window_s: float = window_us // 1_000_000 if window_us % 1_000_000 == 0 else window_us / 1_000_000
        self.policy = f'"{rule.name}";q={rule.limit}' + (
            f";w={self.window_s}" if isinstance(self.window_s, int) else ""
        )
        """The limit's item in the ``RateLimit-Policy`` header; ``w`` is whole seconds or absent."""
        self.attributes = tuple(rule.match.attributes.items())


def in_region(rule: LimitRule, region: str, at_us: int = 0) -> LimitRule:
    """The rule as this region enforces it alone: its own share, if the mode divides the limit between regions.

    A ``strict`` limit without an exchange of rights is the region's share; all shares sum to the limit. While shares
    change, it is the smallest share of any step that may still count at ``at_us``.
    """
    if rule.mode == "shared":
        return rule
    quota = rule.shares.get(region, 0)
    is_bucket = rule.algorithm in BUCKET_ALGORITHMS
    last = max((place for place, step in enumerate(rule.steps) if only_from_us(rule, step) <= at_us), default=0)
    for step in rule.steps[last:-1]:
        units = step.shares.get(region, 0)
        quota = min(quota, units * rule.limit // max(1, capacity(rule)) if is_bucket else units)
    return part_of(rule, quota, capacity(rule) * quota // rule.limit) if rule.limit else rule


def of_whole_site(rule: LimitRule) -> LimitRule:
    """The limit of a whole IPv6 site (/48, which is 65,536 times a /64): a multiple, never shown in headers."""
    limit = rule.limit * SITE_FACTOR
    if rule.algorithm == "sliding_log":
        limit = min(limit, MAX_SLIDING_LOG_LIMIT)
    burst = None if rule.burst is None else rule.burst * SITE_FACTOR
    site = msgspec.structs.replace(scaled(rule, limit, burst), visible=False, headline=False)
    return rule if any(violations(site)) else site


def shared_params(rule: LimitRule, region_facts: RegionFacts, regions: Mapping[str, object]) -> bytes:
    """Pack a shared limit. Unreachable peers keep their share of what is left."""
    shares = rule.shares if sum(rule.shares.values()) else dict.fromkeys(regions, 1)
    unreachable = [
        (name, shares.get(name, 0), since_us) for name, since_us in region_facts.unreachable if name in regions
    ]
    params = encode_rule(rule, shared=True)
    if not unreachable or not rule.limit:
        return params
    all_shares = sum(shares.values())
    if rule.algorithm in BUCKET_ALGORITHMS:
        return _slower_bucket(rule, all_shares - sum(share for _, share, _ in unreachable), all_shares)
    peers = _ALL_SHARES.pack(all_shares) + b"".join(
        bytes([len(name)]) + name.encode() + _PEER.pack(share, since_us) for name, share, since_us in unreachable
    )
    return bytes([params[0] + UNREACHABLE]) + params[1:] + _SIZE.pack(len(peers)) + peers


def _slower_bucket(rule: LimitRule, reachable_shares: int, all_shares: int) -> bytes:
    """Pack a bucket that fills at the rate of the reachable regions' shares; in thousandths, to stay exact."""
    slower = Fraction(rule.limit * max(1, 1_000 * reachable_shares // all_shares), nominal_window_us(rule) * 1_000)
    return RULE.pack(head_of(rule, SHARED), *exact_rate(slower, capacity(rule)), capacity(rule))


def can_apply(rule: LimitRule, endpoint: Endpoint, method: str) -> bool:
    """Whether a rule can apply on a route; attributes are checked with each request."""
    if rule.match.endpoints and endpoint.endpoint not in rule.match.endpoints:
        return False
    if rule.match.methods and not any(name in rule.match.methods for name in _SAME.get(method, (method,))):
        return False
    return endpoint.backend is not None or "backend" not in ordered_dimensions(rule.scope)


def applies(limit: ResolvedLimit, attributes: Mapping[str, str]) -> bool:
    """Whether the attributes match the limit."""
    return all(attributes.get(name) == value for name, value in limit.attributes)


def headline_of(limits: Sequence[ResolvedLimit]) -> int:
    """The place of the limit that headers show: the marked one, else the first visible one, else the first."""
    marked = [place for place, limit in enumerate(limits) if limit.rule.headline]
    shown = [place for place, limit in enumerate(limits) if limit.visible and not limit.rule.shadow]
    return next(iter([*marked, *shown]), 0)
