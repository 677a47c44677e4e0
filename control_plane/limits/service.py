"""What can be done with limits: those of plans use ``write_row``, those outside plans are a resource of their own."""

from collections.abc import Iterable

from pydantic import BaseModel

from control_plane.adaptive.service import unknown_policy
from control_plane.errors import ConflictError, FieldError, InvalidError
from control_plane.limits import repository
from control_plane.limits.models import LimitEndpoint, LimitRow
from control_plane.limits.rules import faults, rule_fields, starts_afresh, to_record, to_rule, to_view
from control_plane.limits.schemas import MAX_LIMITS, LimitFields, LimitRecord, LimitView
from control_plane.regions import repository as regions
from control_plane.resources import Resource
from control_plane.rollout.documents import DocumentKey
from control_plane.rollout.writer import ConfigWrite
from control_plane.routes.repository import existing_endpoints, next_rule_id


async def check(write: ConfigWrite, name: str, body: LimitFields, *, at: str = "") -> list[FieldError]:
    """What is wrong with a limit; ``at`` is its place in the body."""
    errors = list(faults(name, body, rule_fields(body), at=at))
    existing = await existing_endpoints(write.session, body.match.endpoints) if body.match.endpoints else set()
    errors += [
        FieldError(f"{at}match.endpoints[{place}]", f"there is no endpoint named {endpoint}")
        for place, endpoint in enumerate(body.match.endpoints)
        if endpoint not in existing
    ]
    return errors + await unknown_policy(write.session, body.adaptive, at=at)


async def write_row(write: ConfigWrite, row: LimitRow | None, name: str, body: LimitFields) -> LimitRow:
    """Make or change a limit's row. The rule id stays unless what was counted does not fit any more."""
    fields = rule_fields(body)
    if row is None:
        row = LimitRow(name=name, rule_id=await next_rule_id(write.session), match_endpoints=[], shares=[])
    elif starts_afresh(row, fields):
        row.rule_id = await next_rule_id(write.session)
    for member, value in fields.items():
        setattr(row, member, value)
    row.match_methods = sorted(body.match.methods)
    row.match_attributes = dict(sorted(body.match.attributes.items()))
    kept = {item.endpoint: item for item in row.match_endpoints}
    row.match_endpoints = [kept.get(name) or LimitEndpoint(endpoint=name) for name in sorted(body.match.endpoints)]
    return row


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
        """Record it as a limit."""
        write.record("limit", name, before, None if row is None else to_record(row))

    async def save(self, write: ConfigWrite, name: str, body: LimitFields, current: LimitRow | None) -> LimitRow:
        """Make or change a limit."""
        errors = await check(write, name, body)
        if errors:
            raise InvalidError(errors)
        if current is None and await repository.count_outside_plans(write.session) >= MAX_LIMITS:
            raise ConflictError(f"There are {MAX_LIMITS} limits outside plans already.")
        row = await write_row(write, current, name, body)
        write.session.add(row)
        write.publish(to_rule(row, await regions.names(write.session)))
        return row

    async def remove(self, write: ConfigWrite, row: LimitRow) -> None:
        """Delete a limit."""
        await write.session.delete(row)
        write.withdraw(DocumentKey("limit", row.name))
