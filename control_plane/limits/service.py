"""Plans and limits: a limit from its body to its row and the rule for nodes; then what the API has of both."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, cast

import msgspec
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adaptive.service import AdaptivePolicies
from control_plane.errors import ConflictError, FieldError, InvalidError, NotFoundError
from control_plane.limits.models import SPLIT_MODES, LimitEndpoint, LimitRow, PlanRow
from control_plane.limits.schemas import (
    MAX_LIMITS,
    LimitFields,
    LimitRecord,
    LimitView,
    MatchView,
    PlanFields,
    PlanRecord,
    PlanView,
)
from control_plane.publishing.repository import DocumentKey
from control_plane.publishing.writer import ConfigWrite
from control_plane.regions import repository as regions
from control_plane.resources import NamedRows, Resource
from control_plane.routes.repository import next_rule_ids
from control_plane.routes.service import Endpoints
from control_plane.web.fields import microseconds
from tidegate.contract.config import DOCUMENT_TYPES, Plan
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
_LIMITS_BY = {"limit": LimitRow.limit, "priority": LimitRow.priority, "algorithm": LimitRow.algorithm}
AFRESH = ("scope", "algorithm", "window_us", "calendar", "anchor_us")
"""A change in any of these, or to or from ``strict``, gives the limit a new rule id: what was counted fits no more."""


class LimitWish(NamedTuple):
    """A limit to write: its place in the body, its name, and its row if it exists."""

    at: str
    name: str
    body: LimitFields
    row: LimitRow | None = None


async def check(write: ConfigWrite, wishes: Sequence[LimitWish]) -> list[FieldError]:
    """The faults of these limits, by one query for all."""
    endpoints = {endpoint for wish in wishes for endpoint in wish.body.match.endpoints}
    policies = {wish.body.adaptive for wish in wishes if wish.body.adaptive is not None}
    known_endpoints = await Endpoints.rows.existing(write.session, endpoints) if endpoints else set()
    known_policies = await AdaptivePolicies.rows.existing(write.session, policies) if policies else set()
    errors: list[FieldError] = []
    for at, name, body, _ in wishes:
        errors += faults(name, body, rule_fields(body), at=at)
        errors += [
            FieldError(f"{at}match.endpoints[{place}]", f"there is no endpoint named {endpoint}")
            for place, endpoint in enumerate(body.match.endpoints)
            if endpoint not in known_endpoints
        ]
        if body.adaptive is not None and body.adaptive not in known_policies:
            errors.append(FieldError(f"{at}adaptive", f"there is no adaptive policy named {body.adaptive}"))
    return errors


async def write_rows(write: ConfigWrite, wishes: Sequence[LimitWish]) -> list[LimitRow]:
    """Make or change rows. A rule id stays unless what was counted does not fit any more."""
    fields = [rule_fields(wish.body) for wish in wishes]
    afresh = [wish.row is None or starts_afresh(wish.row, new) for wish, new in zip(wishes, fields, strict=True)]
    ids = iter(await next_rule_ids(write.session, sum(afresh)) if any(afresh) else ())
    rows = []
    for wish, new, needs_id in zip(wishes, fields, afresh, strict=True):
        row = wish.row or LimitRow(name=wish.name, match_endpoints=[], shares=[])
        if needs_id:
            row.rule_id = next(ids)
        _fill(row, wish.body, new)
        rows.append(row)
    return rows


def _fill(row: LimitRow, body: LimitFields, fields: Mapping[str, Any]) -> None:
    for member, value in fields.items():
        setattr(row, member, value)
    row.match_methods = sorted(body.match.methods)
    row.match_attributes = dict(sorted(body.match.attributes.items()))
    kept = {item.endpoint: item for item in row.match_endpoints}
    row.match_endpoints = [kept.get(name) or LimitEndpoint(endpoint=name) for name in sorted(body.match.endpoints)]


def headline_faults(limits: Iterable[tuple[str, bool]]) -> list[FieldError]:
    """At most one of (place, headline) may be marked."""
    marked = [place for place, headline in limits if headline]
    return [FieldError(f"{place}headline", "only one limit of a plan can be the headline") for place in marked[1:]]


def stored_seconds(window_s: float) -> float:
    """A window as it is read again."""
    return microseconds(window_s) / 1_000_000


def rule_fields(body: LimitFields | LimitView) -> dict[str, Any]:
    """The members of a rule that a limit decides, with defaults filled in."""
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

    Rights of ``strict`` are no counts of other modes. Under one id a region's count would replace the rights that it
    has, but not those that it gave away.
    """
    was_strict, is_strict = row.mode == "strict", fields["mode"] == "strict"
    return was_strict != is_strict or any(getattr(row, name) != fields[name] for name in AFRESH)


def to_rule(row: LimitRow, region_names: Sequence[str]) -> LimitRule:
    """The rule for nodes, with the shares of ``region_names`` in whole units."""
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
        shares=units_by_region(row, region_names),
        parts=_parts(row, region_names),
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
    shares = _split(row, capacity(rule), region_names)
    return msgspec.structs.replace(rule, steps=(ShareStep(limit=rule.limit, shares=shares),))


def rules_in(key: DocumentKey, body: str | None) -> dict[int, LimitRule]:
    """The rules of a plan's document as it is stored, or of a limit's, by id."""
    document = None if body is None else msgspec.json.decode(body, type=DOCUMENT_TYPES[key.kind])
    limits = document.limits if isinstance(document, Plan) else (document,)
    return {rule.id: rule for rule in limits if isinstance(rule, LimitRule)}


def changed_but_limit(before: Mapping[str, LimitRule], after: Mapping[str, LimitRule]) -> list[str]:
    """The limits that differ in more than ``limit``, or are gone: clients' own figures may no longer fit them."""
    return [
        name
        for name, rule in before.items()
        if name not in after or rule != msgspec.structs.replace(after[name], limit=rule.limit)
    ]


def is_split(row: LimitRow) -> bool:
    """Whether regions have shares of the limit, by its mode or as somebody gave them."""
    return row.mode in SPLIT_MODES or bool(row.shares or row.auto_shares)


def units_by_region(row: LimitRow, region_names: Sequence[str], whole: int | None = None) -> dict[str, int]:
    """Whole units a region: explicit, else balanced or equal for the modes that need shares, else none.

    ``whole`` in place of the limit: that of a client with figures of its own.
    """
    return _split(row, row.limit if whole is None else whole, region_names)


def _parts(row: LimitRow, region_names: Sequence[str]) -> tuple[ShareStep, ...]:
    shares = _split(row, PARTS, region_names) if row.mode in SPLIT_MODES else {}
    return (ShareStep(limit=PARTS, shares=shares),) if shares else ()


def fractions_of(row: LimitRow, region_names: Sequence[str]) -> dict[str, float]:
    """The regions' fractions of the whole, as far as they are not equal by default: explicit or balanced."""
    if row.shares:
        return {share.region: share.fraction for share in row.shares}
    if not (row.auto_shares and row.auto_fractions):
        return {}
    # a region that came since the last balance takes an equal part; the parts need not sum to 1
    fractions = {region: row.auto_fractions.get(region, 1 / len(region_names)) for region in region_names}
    # equal parts, too, where the region is gone that had all of it
    return fractions if any(fractions.values()) else {}


def _split(row: LimitRow, whole: int, region_names: Sequence[str]) -> dict[str, int]:
    fractions = fractions_of(row, region_names)
    if fractions:
        return explicit_shares(whole, fractions, region_names)
    return equal_shares(whole, region_names) if row.mode in SPLIT_MODES else {}


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


def rows_of(plan: str | None) -> NamedRows[LimitRow]:
    """The limits of a plan, or those outside plans."""
    within = LimitRow.plan.is_(None) if plan is None else LimitRow.plan == plan
    return NamedRows(LimitRow, LimitRow.name, within, _LIMITS_BY)


async def limit_row(session: AsyncSession, plan: str | None, limit: str) -> LimitRow:
    """A limit of a plan, or outside plans. Raises :class:`NotFoundError`."""
    row = await rows_of(plan).find(session, limit)
    if row is None:
        where = "outside plans" if plan is None else f"in the plan {plan}"
        raise NotFoundError(f"There is no limit named {limit} {where}.")
    return row


class OutsideLimits(Resource[LimitRow, LimitFields, LimitView]):
    """Limits outside plans: by IP, endpoint, backend, global."""

    noun = "limit outside plans"
    rows = rows_of(None)

    def view(self, row: LimitRow) -> LimitView:
        """Show a limit."""
        return to_view(row)

    def audited(self, row: LimitRow) -> LimitRecord:
        """The limit with its shares."""
        return to_record(row)

    def record(self, write: ConfigWrite, name: str, before: BaseModel | None, row: LimitRow | None) -> None:
        """Record a change of the limit."""
        write.record("limit", name, before, None if row is None else to_record(row))

    async def save(self, write: ConfigWrite, name: str, body: LimitFields, current: LimitRow | None) -> LimitRow:
        """Make or change a limit."""
        wish = LimitWish("", name, body, current)
        errors = await check(write, [wish])
        if errors:
            raise InvalidError(errors)
        if current is None and await self.rows.count(write.session) >= MAX_LIMITS:
            raise ConflictError(f"There are {MAX_LIMITS} limits outside plans already.")
        (row,) = await write_rows(write, [wish])
        write.session.add(row)
        write.publish(to_rule(row, await regions.names(write.session)))
        return row

    async def remove(self, write: ConfigWrite, row: LimitRow) -> None:
        """Delete a limit."""
        await write.session.delete(row)
        write.withdraw(DocumentKey("limit", row.name))


async def publish_plan(write: ConfigWrite, row: PlanRow) -> None:
    """Publish the plan as its rows are now."""
    names = await regions.names(write.session) if any(map(is_split, row.limits)) else ()
    rules = tuple(to_rule(limit, names) for limit in row.limits)
    write.publish(Plan(plan=row.plan, priority=row.priority, limits=rules))


def plan_record(row: PlanRow) -> PlanRecord:
    """A plan in the audit log."""
    return PlanRecord(plan=row.plan, priority=row.priority, limits=[to_record(limit) for limit in row.limits])


class Plans(Resource[PlanRow, PlanFields, PlanView]):
    """Plans with all their limits."""

    noun = "plan"
    rows = NamedRows(PlanRow, PlanRow.plan, sortable={"priority": PlanRow.priority})

    def view(self, row: PlanRow) -> PlanView:
        """Show a plan."""
        return PlanView(plan=row.plan, priority=row.priority, limits=[to_view(limit) for limit in row.limits])

    def audited(self, row: PlanRow) -> PlanRecord:
        """The plan with its limits' shares."""
        return plan_record(row)

    async def save(self, write: ConfigWrite, name: str, body: PlanFields, current: PlanRow | None) -> PlanRow:
        """Make or change a plan; limits that keep their name keep their counts where they can."""
        await self._check(write, body)
        row = current or PlanRow(plan=name, limits=[])
        row.priority = body.priority
        kept = {limit.name: limit for limit in row.limits}
        wishes = [LimitWish("", limit.name, limit, kept.get(limit.name)) for limit in body.limits]
        row.limits = await write_rows(write, wishes)
        for position, limit in enumerate(row.limits):
            limit.position = position
        write.session.add(row)
        await publish_plan(write, row)
        return row

    async def remove(self, write: ConfigWrite, row: PlanRow) -> None:
        """Delete a plan that no client is on."""
        await write.session.delete(row)
        write.withdraw(DocumentKey("plan", row.plan))

    async def _check(self, write: ConfigWrite, body: PlanFields) -> None:
        wishes = [LimitWish(f"limits[{place}].", item.name, item) for place, item in enumerate(body.limits)]
        errors = [
            FieldError(f"{wish.at}name", "another limit of this plan has this name")
            for place, wish in enumerate(wishes)
            if any(wish.name == other.name for other in wishes[:place])
        ]
        errors += await check(write, wishes)
        errors += headline_faults((wish.at, wish.body.headline) for wish in wishes)
        if errors:
            raise InvalidError(errors)


class PlanLimits(Resource[LimitRow, LimitFields, LimitView]):
    """The limits of one plan."""

    noun = "limit"

    def __init__(self, plan: PlanRow) -> None:
        self._plan = plan
        self._before = plan_record(plan)
        self.rows = rows_of(plan.plan)

    def view(self, row: LimitRow) -> LimitView:
        """Show a limit."""
        return to_view(row)

    def record(self, write: ConfigWrite, name: str, before: BaseModel | None, row: LimitRow | None) -> None:  # noqa: ARG002  # the plan says it all
        """Record the plan as a whole."""
        write.record("plan", self._plan.plan, self._before, plan_record(self._plan))

    def missing(self, name: str) -> NotFoundError:
        """The error for an unknown limit of the plan."""
        return NotFoundError(f"The plan {self._plan.plan} has no limit named {name}.")

    async def save(self, write: ConfigWrite, name: str, body: LimitFields, current: LimitRow | None) -> LimitRow:
        """Make (at the end) or change a limit of the plan."""
        wish = LimitWish("", name, body, current)
        errors = await check(write, [wish])
        others = [limit for limit in self._plan.limits if limit is not current]
        if body.headline:
            errors += headline_faults([*(("", limit.headline) for limit in others), ("", True)])
        if errors:
            raise InvalidError(errors)
        if len(others) >= MAX_LIMITS:
            raise ConflictError(f"The plan {self._plan.plan} has {MAX_LIMITS} limits already.")
        (row,) = await write_rows(write, [wish])
        if current is None:
            row.position = 1 + max((limit.position for limit in others), default=-1)
            self._plan.limits.append(row)
        await publish_plan(write, self._plan)
        return row

    async def remove(self, write: ConfigWrite, row: LimitRow) -> None:
        """Take a limit out of the plan."""
        self._plan.limits.remove(row)
        await publish_plan(write, self._plan)
