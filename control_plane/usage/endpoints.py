"""``/v1/usage``, and a client's ``usage`` and ``limits``: what was allowed and denied, and what is left."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import Response
from sqlalchemy import RowMapping

from control_plane.access.principals import by_method
from control_plane.clients.models import ClientRow
from control_plane.database import Reading
from control_plane.errors import FieldError, InvalidError, NotFoundError
from control_plane.usage import exports, limits_view
from control_plane.usage import repository as reading
from control_plane.usage.limits_view import ClientLimits
from control_plane.usage.repository import FIGURES, UsageQuery
from control_plane.usage.schemas import DIMENSIONS, BusiestClients, BusyClient, Dimension, Step, UsageItem, UsageListing
from control_plane.usage.windows import whole_hour
from control_plane.web.fields import ClientName, Instant
from control_plane.web.pages import Page, PageQuery, listing

router = APIRouter(prefix="/v1", tags=["usage"], dependencies=[Depends(by_method)])

_DEFAULT_SPAN = timedelta(days=1)
_LONGEST = timedelta(days=800)
_CSV: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}
Filter = Annotated[str | None, Query(max_length=128, pattern=r"^[^\x00]*$")]
_GROUPS = (*DIMENSIONS, "hour", "day")
GroupBy = Annotated[
    str,
    Query(
        max_length=64,
        description=f"any of {', '.join(_GROUPS)}, separated by commas; without hour and day: all of the time",
    ),
]


def _query(
    group_by: GroupBy = "hour",
    since: Annotated[Instant | None, Query(alias="from", description="a day before `to` by default")] = None,
    until: Annotated[Instant | None, Query(alias="to", description="not included; now by default")] = None,
    plan: Filter = None,
    of_limit: Filter = None,
    endpoint: Filter = None,
    region: Filter = None,
    key: Filter = None,
) -> UsageQuery:
    names = tuple(name.strip() for name in group_by.split(",") if name.strip())
    wrong = [name for name in names if name not in _GROUPS]
    if wrong:
        raise InvalidError([FieldError("group_by", f"{wrong[0]!r} is not one of {', '.join(_GROUPS)}")])
    step: Step = "hour" if "hour" in names else "day" if "day" in names else "none"
    end = _next_hour(until or datetime.now(UTC))
    begin = whole_hour(since or end - _DEFAULT_SPAN)
    if begin >= end:
        raise InvalidError([FieldError("from", "must lie before `to`")])
    if end - begin > _LONGEST:
        raise InvalidError([FieldError("from", f"must lie within {_LONGEST.days} days before `to`")])
    filters = {"plan": plan, "limit": of_limit, "endpoint": endpoint, "region": region, "key": key}
    only = {cast("Dimension", name): value for name, value in filters.items() if value is not None}
    grouped = tuple(dimension for dimension in DIMENSIONS if dimension in names)
    return UsageQuery(grouped, step, begin, end, only)


Asked = Annotated[UsageQuery, Depends(_query)]
Accept = Annotated[
    str | None, Header(description="`text/csv` for CSV: a page where `limit` or `cursor` is given, else everything")
]
Live = Annotated[
    bool,
    Query(description="let each region ship what waits in its stream first; a region has a second to do it"),
]


@router.get("/usage", response_model=UsageListing, responses=_CSV)
async def list_usage(
    request: Request, page: PageQuery, query: Asked, client: Filter = None, live: Live = False, accept: Accept = None
) -> Response:
    """Usage of everybody, by the dimensions of `group_by`. Without `limit` among them a request counts once; with it,
    once for each limit that took part. `complete_until` says how far each region has reported.
    """
    if client is not None:
        query = query._replace(only=query.only | {"client": client})
    return await _answer(request, page, query, accept, live=live)


@router.get("/usage/busiest")
async def busiest_clients(
    session: Reading,
    by: Literal["allowed", "denied", "cost"] = "allowed",
    count: Annotated[int, Query(ge=1, le=100)] = 10,
    since: Annotated[Instant | None, Query(alias="from", description="the begin of this hour by default")] = None,
) -> BusiestClients:
    """The clients that did most, most first."""
    begin = whole_hour(since or datetime.now(UTC))
    if datetime.now(UTC) - begin > timedelta(days=31):
        raise InvalidError([FieldError("from", "must lie within the last 31 days")])
    rows = await reading.busiest(session, begin, by, count)
    items = [BusyClient(**{**row, "client": row["client"] or None}) for row in rows]
    return BusiestClients(items=items, complete_until=await reading.complete_until(session))


@router.get("/clients/{client}/usage", response_model=UsageListing, responses=_CSV)
async def list_client_usage(
    request: Request, client: ClientName, page: PageQuery, query: Asked, live: Live = False, accept: Accept = None
) -> Response:
    """One client's usage."""
    async with request.state.database.read() as session:
        if await session.get(ClientRow, client) is None:
            raise NotFoundError(f"There is no client named {client}.")
    query = query._replace(only=query.only | {"client": client})
    return await _answer(request, page, query, accept, live=live)


@router.get("/clients/{client}/limits")
async def list_client_limits(client: ClientName, request: Request) -> ClientLimits:
    """Every limit in force for a client: where it comes from, and used and remaining in each region, asked of its
    nodes; a region that does not answer within a second has nulls and the reason.
    """
    state = request.state
    async with state.database.read() as session:  # given back before the regions are asked
        found = await limits_view.find(session, client, datetime.now(UTC), state.settings.heartbeat_s)
    return await limits_view.ask(state.questions, found)


async def _answer(request: Request, page: Page, query: UsageQuery, accept: str | None, *, live: bool) -> Response:
    state = request.state
    _check_kept(query, datetime.now(UTC), state.settings.usage_hourly_days)
    shipped = await state.questions.ship_now() if live else None
    as_csv = _wants_csv(accept)
    if as_csv and request.query_params.keys().isdisjoint({"limit", "cursor"}):
        whole: Response = await state.exports.whole(query)
        return whole
    async with state.database.read() as session:
        rows = await reading.lines(session, query, page)
        complete = await reading.complete_until(session)
    part = listing(rows, page, lambda row: reading.cursor_of(row, query), lambda row: _item(row, query.step))
    if as_csv:
        headers = {"Vary": "Accept"} | ({} if part.next_cursor is None else {"X-Next-Cursor": part.next_cursor})
        return Response(exports.page(rows[: page.limit], query), media_type=exports.MEDIA_TYPE, headers=headers)
    view = UsageListing(items=part.items, next_cursor=part.next_cursor, complete_until=complete, live=shipped)
    return Response(view.model_dump_json(), media_type="application/json", headers={"Vary": "Accept"})


def _check_kept(query: UsageQuery, now: datetime, hourly_days: int) -> None:
    """Raise :class:`InvalidError` for a query of hours of clients that are no longer kept."""
    kept_since = _day_begin(now) - timedelta(days=hourly_days)
    if not query.asks_clients or query.since >= kept_since:
        return
    kept = f"hours by client or key are kept for {hourly_days} days, since {kept_since:%Y-%m-%d}"
    if query.step == "hour":
        raise InvalidError([FieldError("from", f"is too long ago: {kept}; group by `day` instead")])
    for field, at in (("from", query.since), ("to", query.until)):
        if at < kept_since and at != _day_begin(at):
            raise InvalidError([FieldError(field, f"must be midnight UTC, as only days go back so far: {kept}")])


def _item(row: RowMapping, step: Step) -> UsageItem:
    named = {reading.member_of(dimension): row.get(column) or None for dimension, column in reading.COLUMNS.items()}
    at = {} if step == "none" else {step: row["at"]}
    return UsageItem(**at, **named, **{name: row[name] for name in FIGURES})


def _wants_csv(accept: str | None) -> bool:
    """Whether CSV is named, and JSON is not."""
    kinds = [kind.partition(";")[0].strip().lower() for kind in (accept or "").split(",")]
    return "text/csv" in kinds and "application/json" not in kinds


def _day_begin(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _next_hour(at: datetime) -> datetime:
    begin = whole_hour(at)
    return begin if begin == at else begin + timedelta(hours=1)
