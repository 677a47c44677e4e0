"""Explicit shares, and the new distribution when regions come and go."""

from collections.abc import Sequence
from typing import Literal, cast

from sqlalchemy.ext.asyncio import AsyncSession

from contract.limits import Mode
from control_plane.errors import FieldError, InvalidError, NotFoundError
from control_plane.limits import repository as limits
from control_plane.limits.models import LimitRow, LimitShare
from control_plane.limits.rules import to_record, to_rule, units_by_region
from control_plane.plans import repository as plans
from control_plane.plans.service import Plans, publish
from control_plane.plans.service import to_record as plan_record
from control_plane.quotas.schemas import QuotaView
from control_plane.regions import repository as regions
from control_plane.rollout.writer import ConfigWrite
from control_plane.web.etags import Preconditions
from control_plane.web.pages import Listing, Page, listing

OUTSIDE_PLANS = "_"


async def redistribute(write: ConfigWrite) -> None:
    """Publish every limit anew with the regions that there are now; what does not differ makes no change."""
    for plan in await plans.all_plans(write.session):
        await publish(write, plan)
    names = await regions.names(write.session)
    for row in await limits.all_outside_plans(write.session):
        write.publish(to_rule(row, names))


async def get(session: AsyncSession, plan: str, limit: str) -> QuotaView:
    """One limit's quota."""
    return _view(await _row(session, plan, limit), await regions.names(session))


async def list_page(session: AsyncSession, page: Page) -> Listing[QuotaView]:
    """The quotas of every limit that is split over regions."""
    names = await regions.names(session)
    rows = await limits.split_limits(session, page)
    return listing(rows, page, limits.quota_key, lambda row: _view(row, names))


async def replace(
    write: ConfigWrite, plan: str, limit: str, shares: dict[str, float] | Literal["auto"], preconditions: Preconditions
) -> QuotaView:
    """Set a limit's shares."""
    row = await _row(write.session, plan, limit)
    names = await regions.names(write.session)
    preconditions.check(_view(row, names))
    fractions = {} if shares == "auto" else shares
    unknown = [FieldError(f"shares.{name}", "there is no such region") for name in fractions if name not in names]
    if unknown:
        raise InvalidError(unknown)
    await _set_shares(write, row, fractions, auto=shares == "auto")
    return _view(row, names)


async def reset(write: ConfigWrite, plan: str, limit: str, preconditions: Preconditions) -> None:
    """Go back to equal shares."""
    row = await _row(write.session, plan, limit)
    preconditions.check(_view(row, await regions.names(write.session)))
    await _set_shares(write, row, {}, auto=False)


async def _set_shares(write: ConfigWrite, row: LimitRow, fractions: dict[str, float], *, auto: bool) -> None:
    before = to_record(row)
    kept = {share.region: share for share in row.shares}
    row.shares = [kept.get(region) or LimitShare(region=region) for region in sorted(fractions)]
    for share in row.shares:
        share.fraction = fractions[share.region]
    row.auto_shares = auto
    if row.plan is None:
        write.publish(to_rule(row, await regions.names(write.session)))
        write.record("limit", row.name, before, to_record(row))
        return
    plan = await Plans().row(write.session, row.plan)
    await publish(write, plan)
    after = plan_record(plan)
    limits = [before if limit.name == row.name else limit for limit in after.limits]
    write.record("plan", plan.plan, after.model_copy(update={"limits": limits}), after)


async def _row(session: AsyncSession, plan: str, limit: str) -> LimitRow:
    row = await limits.rows_of(None if plan == OUTSIDE_PLANS else plan).find(session, limit)
    if row is None:
        where = "outside plans" if plan == OUTSIDE_PLANS else f"in the plan {plan}"
        raise NotFoundError(f"There is no limit named {limit} {where}.")
    return row


def _view(row: LimitRow, regions: Sequence[str]) -> QuotaView:
    explicit = {share.region: share.fraction for share in row.shares}
    return QuotaView(
        plan=row.plan,
        limit=row.name,
        mode=cast("Mode", row.mode),
        shares=explicit or ("auto" if row.auto_shares else "equal"),
        units=units_by_region(row, regions),
    )
