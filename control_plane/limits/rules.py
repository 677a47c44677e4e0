"""Converts limits between body, row and the rule for nodes. No queries here."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast

import msgspec

from control_plane.errors import FieldError
from control_plane.limits.models import LimitRow
from control_plane.limits.schemas import LimitFields, LimitRecord, LimitView, MatchView
from control_plane.web.fields import microseconds
from tidegate.contract.limits import (
    BUCKET_ALGORITHMS,
    PARTS,
    Algorithm,
    Calendar,
    LimitRule,
    Match,
    Mode,
    OnStoreFailure,
    ShareStep,
    capacity,
    violations,
)
from tidegate.contract.shares import equal_shares, explicit_shares

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
SPLIT_MODES = frozenset({"regional", "strict"})
AFRESH = ("scope", "algorithm", "window_us", "calendar", "anchor_us")
"""A change in any of these, or to or from ``strict``, gives the limit a new rule id: what was counted fits no more."""


def stored_seconds(window_s: float) -> float:
    """A window as it is read again."""
    return microseconds(window_s) / 1_000_000


def rule_fields(body: LimitFields) -> dict[str, Any]:
    """The members of a rule that a body decides, with defaults filled in."""
    algorithm = body.algorithm or ("fixed_window" if body.window is not None else "sliding_window")
    return {
        "scope": body.scope,
        "algorithm": algorithm,
        "limit": body.limit,
        "window_us": None if body.window_s is None else microseconds(body.window_s),
        "calendar": body.window,
        "anchor_us": 0 if body.anchor is None else (body.anchor - _EPOCH) // _MICROSECOND,
        "burst": body.burst,
        "mode": body.mode,
        "on_store_failure": body.on_store_failure or ("closed" if body.mode == "strict" else "local"),
        "shadow": body.shadow,
        "priority": body.priority,
        "adaptive": body.adaptive,
        "headline": body.headline,
        "visible": body.visible,
    }


def faults(name: str, body: LimitFields, fields: dict[str, Any], *, at: str) -> Iterator[FieldError]:
    """What is wrong with a limit, each field named with ``at`` (such as ``limits[0].``) in front."""
    rule = LimitRule(id=0, name=name, **fields)
    for violation in violations(rule):
        yield FieldError(at + violation.field, violation.message)
    if body.anchor is not None and body.window is None and fields["anchor_us"] == 0:
        yield FieldError(at + "anchor", "belongs to calendar windows (window), not to window_s")
    if body.anchor is not None and body.window == "week" and fields["anchor_us"] == 0:
        yield FieldError(
            at + "anchor", "is the epoch, which means Monday for weeks: name another Thursday, as 1970-01-08"
        )
    for member, values in (("endpoints", body.match.endpoints), ("methods", body.match.methods)):
        if len(set(values)) != len(values):
            yield FieldError(f"{at}match.{member}", "names one twice")


def starts_afresh(row: LimitRow, fields: dict[str, Any]) -> bool:
    """Whether what was counted under ``row`` is of no use under ``fields``.

    Rights of ``strict`` are no counts of other modes: under one id, what one region counts by the other mode would take
    the place of its rights, while those that it gave another one stay there.
    """
    was_strict, is_strict = row.mode == "strict", fields["mode"] == "strict"
    return was_strict != is_strict or any(getattr(row, name) != fields[name] for name in AFRESH)


def to_rule(row: LimitRow, regions: Sequence[str]) -> LimitRule:
    """The rule for nodes, with the shares of ``regions`` in whole units."""
    rule = LimitRule(
        id=row.rule_id,
        name=row.name,
        scope=row.scope,
        algorithm=cast("Algorithm", row.algorithm),
        limit=row.limit,
        window_us=row.window_us,
        calendar=cast("Calendar | None", row.calendar),
        anchor_us=row.anchor_us,
        burst=row.burst,
        match=Match(
            endpoints=tuple(item.endpoint for item in row.match_endpoints),
            methods=tuple(row.match_methods),
            attributes=row.match_attributes,
        ),
        mode=cast("Mode", row.mode),
        shares=units_by_region(row, regions),
        parts=_parts(row, regions),
        on_store_failure=cast("OnStoreFailure", row.on_store_failure),
        shadow=row.shadow,
        priority=row.priority,
        adaptive=row.adaptive,
        headline=row.headline,
        visible=row.visible,
    )
    if rule.mode != "strict" or rule.algorithm not in BUCKET_ALGORITHMS or not rule.shares:
        return rule
    # the capacity is what is divided, and the rate follows it: a rate of 1 a second has no parts
    shares = _split(row, capacity(rule), regions)
    return msgspec.structs.replace(rule, steps=(ShareStep(limit=rule.limit, shares=shares),))


def units_by_region(row: LimitRow, regions: Sequence[str], whole: int | None = None) -> dict[str, int]:
    """Whole units a region: explicit, else balanced or equal for the modes that need shares, else none.

    ``whole`` in place of the limit: that of a client with figures of its own.
    """
    return _split(row, row.limit if whole is None else whole, regions)


def _parts(row: LimitRow, regions: Sequence[str]) -> tuple[ShareStep, ...]:
    shares = _split(row, PARTS, regions) if row.mode in SPLIT_MODES else {}
    return (ShareStep(limit=PARTS, shares=shares),) if shares else ()


def fractions_of(row: LimitRow, regions: Sequence[str]) -> dict[str, float]:
    """The regions' fractions of the whole, as far as they are not equal by default: explicit or balanced."""
    if row.shares:
        return {share.region: share.fraction for share in row.shares}
    if not (row.auto_shares and row.auto_fractions):
        return {}
    # a region that came since the last balance takes an equal part; the parts need not sum to 1
    return {region: row.auto_fractions.get(region, 1 / len(regions)) for region in regions}


def _split(row: LimitRow, whole: int, regions: Sequence[str]) -> dict[str, int]:
    fractions = fractions_of(row, regions)
    if fractions:
        return explicit_shares(whole, fractions, regions)
    return equal_shares(whole, regions) if row.mode in SPLIT_MODES else {}


def to_view(row: LimitRow) -> LimitView:
    """The view of a limit."""
    return LimitView(
        name=row.name,
        scope=row.scope,
        algorithm=cast("Algorithm", row.algorithm),
        limit=row.limit,
        window_s=None if row.window_us is None else row.window_us / 1_000_000,
        window=cast("Calendar | None", row.calendar),
        anchor=_EPOCH + row.anchor_us * _MICROSECOND if row.anchor_us else None,
        burst=row.burst,
        match=MatchView(
            endpoints=[item.endpoint for item in row.match_endpoints],
            methods=row.match_methods,
            attributes=row.match_attributes,
        ),
        mode=cast("Mode", row.mode),
        on_store_failure=cast("OnStoreFailure", row.on_store_failure),
        shadow=row.shadow,
        priority=row.priority,
        adaptive=row.adaptive,
        headline=row.headline,
        visible=row.visible,
    )


def to_record(row: LimitRow) -> LimitRecord:
    """A limit in the audit log."""
    return LimitRecord(**to_view(row).model_dump(), shares=shares_of(row))


def shares_of(row: LimitRow) -> dict[str, float] | Literal["auto"] | None:
    """Fractions by region where they are explicit, what demand asks for, or (``None``) the same for each."""
    explicit = {share.region: share.fraction for share in row.shares}
    return explicit or ("auto" if row.auto_shares else None)
