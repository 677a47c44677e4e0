"""An override's figures: as its row has them, as nodes get them, and whether they suit the limit."""

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Row

from contract.config import Override
from contract.limits import LimitRule, ShareStep, Violation, violations
from control_plane.clients.models import OverrideRow
from control_plane.clients.schemas import LastingFigures, OverrideFigures
from control_plane.limits.rules import SPLIT_MODES, step_of


def figures_of(row: OverrideRow | Row[Any]) -> OverrideFigures:
    """What a row of the table of overrides says, however it was read."""
    then = None
    if row.expires_at is not None and row.then_limit is not None:
        then = LastingFigures(limit=row.then_limit, burst=row.then_burst)
    return OverrideFigures.model_construct(
        limit=row.limit, burst=row.burst, expires_at=row.expires_at, then=then, shares=row.shares
    )


def ends_at(figures: LastingFigures) -> datetime | None:
    """When these figures end, if they do."""
    return figures.expires_at if isinstance(figures, OverrideFigures) else None


def document_of(figures: OverrideFigures) -> Override:
    """The override as nodes get it."""
    then = figures.then
    return Override(
        limit=figures.limit,
        burst=figures.burst,
        expires_at=None if figures.expires_at is None else figures.expires_at.timestamp(),
        then=None if then is None else Override(limit=then.limit, burst=then.burst),
    )


def shares_of(overrides: Mapping[str, OverrideFigures]) -> dict[str, tuple[ShareStep, ...]]:
    """How limits are divided for a client with these overrides, as nodes get it."""
    return {name: (step_of(one.shares),) for name, one in overrides.items() if one.shares is not None}


def share_faults(rule: LimitRule, shares: Mapping[str, float] | None, regions: Collection[str]) -> Iterator[Violation]:
    """What is wrong with a client's own shares of ``rule``, beside their sum."""
    if shares is None:
        return
    if rule.mode not in SPLIT_MODES:
        yield Violation("shares", f"belong to limits of mode regional or strict: this one is {rule.mode}")
    for name in shares:
        if name not in regions:
            yield Violation(f"shares.{name}", "there is no such region")


def faults(rule: LimitRule, figures: LastingFigures) -> Iterator[Violation]:
    """What is wrong with these figures in place of those of ``rule``."""
    changed = {"limit": figures.limit} if figures.burst is None else {"limit": figures.limit, "burst": figures.burst}
    yield from violations(msgspec.structs.replace(rule, **changed))


def suited(rules: Mapping[str, LimitRule], name: str, figures: OverrideFigures) -> OverrideFigures | None:
    """The figures as far as they mean something on a plan with these rules.

    ``None`` where it has no limit ``name``, or they are not sound in place of its own; without shares where that limit
    is not divided.
    """
    rule = rules.get(name)
    both = (figures, figures.then) if figures.then is not None else (figures,)
    if rule is None or any(fault for one in both for fault in faults(rule, one)):
        return None
    undivided = figures.shares is not None and rule.mode not in SPLIT_MODES
    return figures.model_copy(update={"shares": None}) if undivided else figures
