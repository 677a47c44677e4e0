"""Service of limits: plans use ``write_rows``; limits outside plans are a resource of their own."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

from control_plane.adaptive.service import AdaptivePolicies
from control_plane.errors import ConflictError, FieldError, InvalidError
from control_plane.limits import repository
from control_plane.limits.models import LimitEndpoint, LimitRow
from control_plane.limits.rules import faults, rule_fields, starts_afresh, to_record, to_rule, to_view
from control_plane.limits.schemas import MAX_LIMITS, LimitFields, LimitRecord, LimitView
from control_plane.publishing.documents import DocumentKey
from control_plane.publishing.writer import ConfigWrite
from control_plane.regions import repository as regions
from control_plane.resources import Resource
from control_plane.routes.repository import existing_endpoints, next_rule_ids


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
    known_endpoints = await existing_endpoints(write.session, endpoints) if endpoints else set()
    known_policies = await AdaptivePolicies.rows.find_all(write.session, policies) if policies else {}
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
    ids = iter(await next_rule_ids(write.session, sum(afresh)))
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


class OutsideLimits(Resource[LimitRow, LimitFields, LimitView]):
    """Limits outside plans: by IP, endpoint, backend, global."""

    noun = "limit outside plans"
    rows = repository.rows_of(None)

    def name_of(self, row: LimitRow) -> str:
        """The limit's name."""
        return row.name

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
        if current is None and await repository.count_outside_plans(write.session) >= MAX_LIMITS:
            raise ConflictError(f"There are {MAX_LIMITS} limits outside plans already.")
        (row,) = await write_rows(write, [wish])
        write.session.add(row)
        write.publish(to_rule(row, await regions.names(write.session)))
        return row

    async def remove(self, write: ConfigWrite, row: LimitRow) -> None:
        """Delete a limit."""
        await write.session.delete(row)
        write.withdraw(DocumentKey("limit", row.name))
