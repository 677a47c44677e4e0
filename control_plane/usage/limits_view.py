"""Every limit in force for a client: its source, and its current use in each region."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple, cast

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.blocks import repository as blocks
from control_plane.clients.figures import ends_at, figures_of
from control_plane.clients.models import ClientRow
from control_plane.clients.schemas import LastingFigures
from control_plane.enforcement import repository as enforcement
from control_plane.enforcement.models import EnforcementRow
from control_plane.errors import NotFoundError
from control_plane.limits.models import SPLIT_MODES, LimitRow, PlanRow
from control_plane.limits.service import OutsideLimits, Plans, units_by_region
from control_plane.quotas import repository as quotas
from control_plane.quotas.models import CLIENTS, THE_LIMIT
from control_plane.quotas.repository import ShareOwner
from control_plane.quotas.schemas import MoveView
from control_plane.quotas.service import move_view
from control_plane.regions import repository as regions
from control_plane.usage.questions import NodeQuestions, RegionAnswer
from control_plane.web.fields import View
from tidegate.contract.blocks import EVERY_LIMIT
from tidegate.contract.limits import Algorithm, Calendar, Mode, dimensions
from tidegate.contract.usage import OUTSIDE_PLANS

COUNTED_ONCE = frozenset({("client",), ("global",)})
Source = Literal["plan", "override", "outside"]
SharesFrom = Literal["limit", "auto", "equal"]


class RegionUse(View):
    """What one region has used of a limit, as it sees it now; null with a reason where it is unknown."""

    limit: int | None
    """What this region enforces: its own share where the mode divides the limit."""
    used: int | None
    remaining: int | None
    reset_s: float | None
    reason: str | None


class OverrideInForce(View):
    """The client's own figures."""

    limit: int
    burst: int | None
    expires_at: datetime | None


class EnforcementInForce(View):
    """The enforcement override that holds for the limit."""

    target: str
    mode: Literal["enforce", "shadow"]
    expires_at: datetime | None


class LimitInForce(View):
    """A limit as it holds for the client."""

    name: str
    plan: str | None
    """Null outside plans."""
    source: Source
    scope: str
    algorithm: Algorithm
    mode: Mode
    limit: int
    burst: int | None
    window_s: float | None
    window: Calendar | None
    of_plan: int | None
    """What the plan says, where the client has an override."""
    override: OverrideInForce | None
    shadow: bool
    """Whether it only counts and stops nobody, enforcement overrides included."""
    enforcement: EnforcementInForce | None
    shares: Mapping[str, int]
    """What each region has of it once no `move` waits."""
    shares_from: SharesFrom | None
    """Where they come from: written for the limit, by demand, or the same for all regions. Null where the mode divides
    nothing."""
    move: MoveView | None
    regions: Mapping[str, RegionUse]


class ClientLimits(View):
    """Every limit in force for a client."""

    client: str
    plan: str
    status: Literal["active", "suspended"]
    blocks: list[str]
    """Blocks of this client."""
    limits: list[LimitInForce]
    asked_at: datetime


class Found(NamedTuple):
    """A client's limits in the database at one instant."""

    client: ClientRow
    plan: PlanRow
    outside: Sequence[LimitRow]
    regions: Sequence[str]
    enforcement: Mapping[str, EnforcementRow]
    blocks: Sequence[str]
    moves: Mapping[ShareOwner, MoveView]
    """Moves of shares that wait."""


async def find(session: AsyncSession, name: str, now: datetime, heartbeat_s: float) -> Found:
    """Read a client's limits. Raises ``NotFoundError``."""
    client = await session.get(ClientRow, name)
    if client is None:
        raise NotFoundError(f"There is no client named {name}.")
    plan = await Plans().row(session, client.plan)
    outside = list((await OutsideLimits.rows.find_all(session)).values())
    ids = [row.rule_id for row in (*plan.limits, *outside)]
    moves = await quotas.moves(session, ids)
    return Found(
        client=client,
        plan=plan,
        outside=outside,
        regions=await regions.names(session),
        enforcement={row.target: row for row in await enforcement.in_force(session, now)},
        blocks=await blocks.of_client(session, name, now),
        moves={whose: await move_view(session, move, heartbeat_s) for whose, move in moves.items() if move.waiting},
    )


async def ask(questions: NodeQuestions, found: Found) -> ClientLimits:
    """Ask every region, and combine the answers."""
    answers = await questions.ask(found.client.client, found.regions)
    now = datetime.now(UTC)
    overrides = {row.limit_name: figures_of(row).at(now) for row in found.client.overrides}
    limits = [_limit(found, answers, row, found.plan.plan, overrides.get(row.name)) for row in found.plan.limits]
    limits += [_limit(found, answers, row, None, None) for row in found.outside]
    return ClientLimits(
        client=found.client.client,
        plan=found.plan.plan,
        status=cast("Literal['active', 'suspended']", found.client.status),
        blocks=list(found.blocks),
        limits=limits,
        asked_at=now,
    )


def _limit(
    found: Found, answers: Mapping[str, RegionAnswer], row: LimitRow, plan: str | None, override: LastingFigures | None
) -> LimitInForce:
    enforced = found.enforcement.get(f"{plan or OUTSIDE_PLANS}/{row.name}") or found.enforcement.get(EVERY_LIMIT)
    own = override is not None
    return LimitInForce(
        name=row.name,
        plan=plan,
        source="outside" if plan is None else "override" if own else "plan",
        scope=row.scope,
        algorithm=cast("Algorithm", row.algorithm),
        mode=cast("Mode", row.mode),
        limit=override.limit if override is not None else row.limit,
        burst=override.burst if override is not None else row.burst,
        window_s=None if row.window_us is None else row.window_us / 1_000_000,
        window=cast("Calendar | None", row.calendar),
        of_plan=row.limit if own else None,
        override=None
        if override is None
        else OverrideInForce(limit=override.limit, burst=override.burst, expires_at=ends_at(override)),
        shadow=row.shadow if enforced is None else enforced.mode == "shadow",
        enforcement=None if enforced is None else EnforcementInForce.model_validate(enforced),
        shares=units_by_region(row, found.regions, None if override is None else override.limit),
        shares_from=_shares_from(row),
        move=_move(found, row, own=own),
        regions={region: _use(row, answers[region]) for region in found.regions},
    )


def _shares_from(row: LimitRow) -> SharesFrom | None:
    if row.shares:
        return "limit"
    if row.auto_shares:
        return "auto"
    return "equal" if row.mode in SPLIT_MODES else None


def _move(found: Found, row: LimitRow, *, own: bool) -> MoveView | None:
    """The move of the shares that apply to the client."""
    return found.moves.get(ShareOwner(row.rule_id, CLIENTS if own else THE_LIMIT))


def _use(row: LimitRow, answer: RegionAnswer) -> RegionUse:
    figure = answer.figures.get(row.rule_id)
    if figure is not None:
        return RegionUse(
            limit=figure.limit, used=figure.used, remaining=figure.remaining, reset_s=figure.reset_s, reason=None
        )
    if dimensions(row.scope) not in COUNTED_ONCE:
        reason = f"it counts by {row.scope}: a client has many counters, or none of its own"
    else:
        reason = answer.reason or "the region does not have this limit yet"
    return RegionUse(limit=None, used=None, remaining=None, reset_s=None, reason=reason)
