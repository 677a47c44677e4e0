"""Explicit shares: read, set and reset, and a move that waits for nodes."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, cast

from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.errors import ConflictError, FieldError, InvalidError
from control_plane.limits import repository as limits
from control_plane.limits.models import LimitRow, LimitShare
from control_plane.limits.service import (
    Plans,
    limit_row,
    plan_record,
    publish_plan,
    to_record,
    to_rule,
    units_by_region,
)
from control_plane.publishing.writer import ConfigWrite
from control_plane.quotas import repository
from control_plane.quotas.models import CLIENTS, THE_LIMIT, QuotaMove
from control_plane.quotas.repository import ShareOwner
from control_plane.quotas.scheduling import ack_status, schedule_of
from control_plane.quotas.schemas import BalanceView, FreedRegions, MoveView, QuotaView
from control_plane.quotas.share_schedule import limit_units
from control_plane.regions import repository as regions
from control_plane.web.etags import Preconditions
from control_plane.web.pages import Listing, Page, listing
from tidegate.contract.limits import Mode
from tidegate.contract.usage import OUTSIDE_PLANS

Shares = Mapping[str, float] | Literal["auto"] | None
"""Fractions by region, what demand asks for, or (``None``) the same for each."""


async def get(session: AsyncSession, plan: str, limit: str, heartbeat_s: float) -> QuotaView:
    """One limit's quota."""
    row = await _row(session, plan, limit)
    return (await _views(session, [row], heartbeat_s))[row.rule_id]


async def list_page(
    session: AsyncSession, page: Page, heartbeat_s: float, where: Sequence[ColumnElement[bool]]
) -> Listing[QuotaView]:
    """The quotas of every limit that is split over regions and for which ``where`` holds."""
    rows = await limits.split_limits(session, page, where)
    views = await _views(session, rows, heartbeat_s)
    return listing(rows, page, lambda row: limits.quota_key(row.plan, row.name), lambda row: views[row.rule_id])


async def replace(write: ConfigWrite, plan: str, limit: str, shares: Shares, preconditions: Preconditions) -> None:
    """Set a limit's shares; where one falls and another rises, nodes get the cut first."""
    row = await _row(write.session, plan, limit)
    names = await regions.names(write.session)
    preconditions.check(_view(row, names))
    require_regions(shares, names)
    await set_shares(write, {row: shares})


async def free(write: ConfigWrite, plan: str, limit: str, region: str, preconditions: Preconditions) -> None:
    """Declare that a region that cannot acknowledge its cut spends nothing any more, so that others may rise."""
    row = await _row(write.session, plan, limit)
    names = await regions.names(write.session)
    preconditions.check(_view(row, names))
    moves = [move for move in await repository.waiting(write.session) if move.rule_id == row.rule_id]
    if region not in names:
        raise InvalidError([FieldError("region", "there is no such region")])
    if not moves:
        raise ConflictError("No move of this limit's shares waits for a region.")
    before = sorted({region for move in moves for region in move.freed})
    for move in moves:
        move.freed = sorted({*move.freed, region})
    after = FreedRegions(freed=sorted({*before, region}))
    write.record("quota", f"{plan}/{limit}", FreedRegions(freed=before), after)


async def reset(write: ConfigWrite, plan: str, limit: str, preconditions: Preconditions) -> None:
    """Go back to equal shares."""
    row = await _row(write.session, plan, limit)
    preconditions.check(_view(row, await regions.names(write.session)))
    await set_shares(write, {row: None})


async def set_shares(write: ConfigWrite, wanted: Mapping[LimitRow, Shares]) -> None:
    """Set the shares of limits of one plan, or of one outside plans, and publish and record them once."""
    names = await regions.names(write.session)
    row = next(iter(wanted))
    if row.plan is None:
        before = to_record(row)
        _fill(row, wanted[row])
        write.publish(to_rule(row, names))
        write.record("limit", row.name, before, to_record(row))
        return
    plan = await Plans().row(write.session, row.plan)
    had = plan_record(plan)
    for limit, shares in wanted.items():
        _fill(limit, shares)
    await publish_plan(write, plan)
    write.record("plan", plan.plan, had, plan_record(plan))


def require_regions(shares: Shares, names: Collection[str]) -> None:
    """Raise :class:`InvalidError` for shares of regions that are none of ``names``."""
    fractions = shares if isinstance(shares, Mapping) else {}
    unknown = [FieldError(f"shares.{name}", "there is no such region") for name in fractions if name not in names]
    if unknown:
        raise InvalidError(unknown)


def _fill(row: LimitRow, shares: Shares) -> None:
    fractions = shares if isinstance(shares, Mapping) else {}
    had = {share.region: share for share in row.shares}
    if shares == "auto" and not row.auto_shares:
        # the rebalancer goes on from what is, not from equal shares
        row.auto_fractions = {region: share.fraction for region, share in had.items()}
    row.shares = [had.get(region) or LimitShare(region=region) for region in sorted(fractions)]
    for share in row.shares:
        share.fraction = fractions[share.region]
    row.auto_shares = shares == "auto"


async def publish_limit(write: ConfigWrite, row: LimitRow) -> None:
    """From this revision on, nodes have the limit with the shares that its tables say."""
    if row.plan is None:
        write.publish(to_rule(row, await regions.names(write.session)))
    else:
        await publish_plan(write, await Plans().row(write.session, row.plan))


async def _row(session: AsyncSession, plan: str, limit: str) -> LimitRow:
    return await limit_row(session, None if plan == OUTSIDE_PLANS else plan, limit)


async def _views(session: AsyncSession, rows: Sequence[LimitRow], heartbeat_s: float) -> dict[int, QuotaView]:
    names = await regions.names(session)
    ids = [row.rule_id for row in rows]
    moves = await repository.moves(session, ids)
    balances = await repository.balances(session, ids)
    found = {}
    for row in rows:
        view, balance = _view(row, names), balances.get(row.rule_id)
        status: dict[str, object] = {} if balance is None else {"balance": BalanceView.model_validate(balance)}
        own, of_clients = (moves.get(ShareOwner(row.rule_id, whose)) for whose in (THE_LIMIT, CLIENTS))
        if own is not None and own.waiting:
            status |= {
                "in_force": limit_units(to_rule(row, names), schedule_of(own).steps[-1]),
                "move": await move_view(session, own, heartbeat_s),
            }
        elif of_clients is not None and of_clients.waiting:
            status["move"] = await move_view(session, of_clients, heartbeat_s)
        found[row.rule_id] = view.model_copy(update=status)
    return found


def _view(row: LimitRow, region_names: Sequence[str]) -> QuotaView:
    explicit = {share.region: share.fraction for share in row.shares}
    units = units_by_region(row, region_names)
    return QuotaView(
        plan=row.plan,
        limit=row.name,
        mode=cast("Mode", row.mode),
        shares="auto" if row.auto_shares else explicit or "equal",
        units=units,
        in_force=units,
    )


async def move_view(session: AsyncSession, move: QuotaMove, heartbeat_s: float) -> MoveView:
    """Where a move that waits stands."""
    status = await ack_status(session, move, heartbeat_s)
    waiting_for = [] if status is None else status.situation.waiting_for
    return MoveView(
        since=move.cut_at,
        cut_revision=move.cut_revision,
        waiting_for=waiting_for,
        raise_at=None if move.raise_at_us is None else datetime.fromtimestamp(move.raise_at_us / 1_000_000, UTC),
        freed=move.freed,
        author=move.author,
        reason=move.reason,
    )
