"""Limits that are divided: each region's share under each window id, clients' own figures, and strict parameters."""

import msgspec

from data_plane.store.strict_packing import NO_ID, Quota, Schedule, StrictParams, strict_params
from tidegate.contract.calendar import SKEW_US, WindowGrid, cycle_us, grid_of, id_at, next_start_us, start_us
from tidegate.contract.config import Override
from tidegate.contract.limits import (
    BUCKET_ALGORITHMS,
    EXACT,
    LimitRule,
    ShareStep,
    bucket_rate,
    capacity,
    nominal_window_us,
    reduced_rate,
)
from tidegate.contract.shares import in_proportion, split, units_of


def moves_rights(rule: LimitRule) -> bool:
    """Whether rights of this limit can move between regions.

    They cannot for a bucket so large and slow that doubles cannot count its parts exactly; there each region keeps to
    its own part.
    """
    if rule.mode != "strict" or rule.limit == 0:
        return False
    if rule.algorithm not in BUCKET_ALGORITHMS:
        return True
    _, unit = reduced_rate(rule.limit, nominal_window_us(rule))
    return capacity(rule) ** 2 * unit < EXACT


def schedule_of(rule: LimitRule, region: str) -> Schedule:
    """The region's share under each id, in units of the limit, or of capacity for buckets."""
    if not rule.steps:
        whole = whole_shares(rule)
        return (Quota(NO_ID, whole.get(region, 0)),)
    grid = grid_of(rule)
    return tuple(Quota(_first_id(grid, step.from_us), step.shares.get(region, 0)) for step in rule.steps)


def whole_shares(rule: LimitRule) -> dict[str, int]:
    """Every region's newest share, in the units of ``schedule_of``."""
    if rule.steps:
        return rule.steps[-1].shares
    if rule.algorithm not in BUCKET_ALGORITHMS or not sum(rule.shares.values()):
        return rule.shares
    return split(capacity(rule), rule.shares)


def strict_params_of(rule: LimitRule, region: str, revision: int) -> StrictParams:
    """The parameters of a limit that ``moves_rights``; ``revision`` is that of the configuration."""
    bucket = *reduced_rate(rule.limit, nominal_window_us(rule)), capacity(rule)
    return strict_params(rule, grid_of(rule), bucket, schedule_of(rule, region), revision)


def own_params_of(rule: LimitRule, part: LimitRule, revision: int) -> StrictParams:
    """The parameters of a bucket whose rights do not move: the region's own ``part`` of it."""
    return strict_params(part, grid_of(rule), (*bucket_rate(part), 0), (Quota(NO_ID, capacity(part)),), revision)


def scaled(rule: LimitRule, limit: int, burst: int | None) -> LimitRule:
    """The rule with another limit and its shares in proportion to it."""
    whole = msgspec.structs.replace(rule, limit=limit, burst=burst)
    shares = in_proportion(rule.shares, rule.limit, limit)
    return msgspec.structs.replace(whole, shares=shares, steps=tuple(_scaled(rule, whole, step) for step in rule.steps))


def for_client(rule: LimitRule, override: Override | None) -> LimitRule:
    """The rule under a client's ``override``: its figures, divided between regions as the rule is."""
    return rule if override is None else divided(rule, override.limit, override.burst, rule.parts)


def divided(rule: LimitRule, limit: int, burst: int | None, parts: tuple[ShareStep, ...]) -> LimitRule:
    """The rule with another limit, divided by ``parts``, or in proportion to the rule's shares without parts."""
    if not parts or rule.mode == "shared":
        return scaled(rule, limit, burst)
    whole = msgspec.structs.replace(
        rule, limit=limit, burst=burst, shares=units_of(parts[-1], limit), steps=(), parts=()
    )
    is_bucket = rule.algorithm in BUCKET_ALGORITHMS
    if rule.mode != "strict" or (len(parts) == 1 and not is_bucket):
        return whole
    units = capacity(whole) if is_bucket else limit
    steps = tuple(ShareStep(from_us=part.from_us, limit=limit, shares=units_of(part, units)) for part in parts)
    return msgspec.structs.replace(whole, steps=steps)


def effective_us(rule: LimitRule, now_us: int) -> int:
    """The instant from which units are spent and given under the newest steps only, by the store's clock."""
    return next_start_us(rule, now_us + SKEW_US)


def only_from_us(rule: LimitRule, step: ShareStep) -> int:
    """From when on nothing counts that was used before ``step`` holds, by any clock: neither in the window before nor,
    of a bucket, as tokens that have not come back.
    """
    begins_us = next_start_us(rule, step.from_us - 1) + SKEW_US
    return begins_us if rule.algorithm == "fixed_window" else begins_us + cycle_us(rule)


def most_units(rule: LimitRule) -> int:
    """The most units that one region can hold, or have used, under one id."""
    whole = capacity(rule) if rule.algorithm in BUCKET_ALGORITHMS else rule.limit
    return max([whole, *(sum(step.shares.values()) for step in rule.steps)])


def quanta_in_unit(rule: LimitRule) -> int:
    """Quanta of tokens in a unit of a bucket; 0 for windows."""
    if rule.algorithm not in BUCKET_ALGORITHMS:
        return 0
    return reduced_rate(rule.limit, nominal_window_us(rule))[1] * capacity(rule)


def _scaled(rule: LimitRule, whole: LimitRule, step: ShareStep) -> ShareStep:
    old, new = (rule.limit, whole.limit)
    if rule.algorithm in BUCKET_ALGORITHMS:
        old, new = capacity(rule), capacity(whole)
    # A step of an older limit keeps its proportion to that limit.
    limit = step.limit * whole.limit // rule.limit if rule.limit else 0
    return ShareStep(from_us=step.from_us, limit=limit, shares=in_proportion(step.shares, old, new))


def _first_id(grid: WindowGrid, from_us: int) -> int:
    """The first id that begins at ``from_us`` or later."""
    if from_us <= 0:
        return NO_ID
    id = id_at(grid, from_us)
    return id if start_us(grid, id) >= from_us else id + 1
