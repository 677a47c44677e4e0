"""Service of plans, and of single limits of a plan."""

from pydantic import BaseModel

from control_plane.errors import ConflictError, FieldError, InvalidError, NotFoundError
from control_plane.limits import service as limits
from control_plane.limits.models import LimitRow
from control_plane.limits.schemas import MAX_LIMITS, LimitFields, LimitView
from control_plane.limits.service import to_record as limit_record
from control_plane.limits.service import to_rule, to_view
from control_plane.plans.models import PlanRow
from control_plane.plans.schemas import PlanFields, PlanRecord, PlanView
from control_plane.publishing.repository import DocumentKey
from control_plane.publishing.writer import ConfigWrite
from control_plane.regions import repository as regions
from control_plane.resources import NamedRows, Resource
from tidegate.contract.config import Plan


async def publish(write: ConfigWrite, row: PlanRow) -> None:
    """Publish the plan as its rows are now."""
    names = await regions.names(write.session) if any(map(limits.is_split, row.limits)) else ()
    rules = tuple(to_rule(limit, names) for limit in row.limits)
    write.publish(Plan(plan=row.plan, priority=row.priority, limits=rules))


def to_record(row: PlanRow) -> PlanRecord:
    """A plan in the audit log."""
    return PlanRecord(plan=row.plan, priority=row.priority, limits=[limit_record(limit) for limit in row.limits])


class Plans(Resource[PlanRow, PlanFields, PlanView]):
    """Plans with all their limits."""

    noun = "plan"
    rows = NamedRows(PlanRow, PlanRow.plan, sortable={"priority": PlanRow.priority})

    def name_of(self, row: PlanRow) -> str:
        """The plan's name."""
        return row.plan

    def view(self, row: PlanRow) -> PlanView:
        """Show a plan."""
        return PlanView(plan=row.plan, priority=row.priority, limits=[to_view(limit) for limit in row.limits])

    def audited(self, row: PlanRow) -> PlanRecord:
        """The plan with its limits' shares."""
        return to_record(row)

    async def save(self, write: ConfigWrite, name: str, body: PlanFields, current: PlanRow | None) -> PlanRow:
        """Make or change a plan; limits that keep their name keep their counts where they can."""
        await self._check(write, body)
        row = current or PlanRow(plan=name, limits=[])
        row.priority = body.priority
        kept = {limit.name: limit for limit in row.limits}
        wishes = [limits.LimitWish("", limit.name, limit, kept.get(limit.name)) for limit in body.limits]
        row.limits = await limits.write_rows(write, wishes)
        for position, limit in enumerate(row.limits):
            limit.position = position
        write.session.add(row)
        await publish(write, row)
        return row

    async def remove(self, write: ConfigWrite, row: PlanRow) -> None:
        """Delete a plan that no client is on."""
        await write.session.delete(row)
        write.withdraw(DocumentKey("plan", row.plan))

    async def _check(self, write: ConfigWrite, body: PlanFields) -> None:
        errors: list[FieldError] = []
        seen: set[str] = set()
        for place, limit in enumerate(body.limits):
            at = f"limits[{place}]."
            if limit.name in seen:
                errors.append(FieldError(at + "name", "another limit of this plan has this name"))
            seen.add(limit.name)
        placed = enumerate(body.limits)
        errors += await limits.check(
            write, [limits.LimitWish(f"limits[{at}].", item.name, item) for at, item in placed]
        )
        errors += limits.headline_faults((f"limits[{place}].", item.headline) for place, item in enumerate(body.limits))
        if errors:
            raise InvalidError(errors)


class PlanLimits(Resource[LimitRow, LimitFields, LimitView]):
    """The limits of one plan."""

    noun = "limit"

    def __init__(self, plan: PlanRow) -> None:
        self._plan = plan
        self._before = to_record(plan)
        self.rows = limits.rows_of(plan.plan)

    def name_of(self, row: LimitRow) -> str:
        """The limit's name."""
        return row.name

    def view(self, row: LimitRow) -> LimitView:
        """Show a limit."""
        return to_view(row)

    def record(self, write: ConfigWrite, name: str, before: BaseModel | None, row: LimitRow | None) -> None:  # noqa: ARG002  # the plan says it all
        """Record the plan as a whole."""
        write.record("plan", self._plan.plan, self._before, to_record(self._plan))

    def missing(self, name: str) -> NotFoundError:
        """The error for an unknown limit of the plan."""
        return NotFoundError(f"The plan {self._plan.plan} has no limit named {name}.")

    async def save(self, write: ConfigWrite, name: str, body: LimitFields, current: LimitRow | None) -> LimitRow:
        """Make (at the end) or change a limit of the plan."""
        wish = limits.LimitWish("", name, body, current)
        errors = await limits.check(write, [wish])
        others = [limit for limit in self._plan.limits if limit is not current]
        if body.headline:
            errors += limits.headline_faults([*(("", limit.headline) for limit in others), ("", True)])
        if errors:
            raise InvalidError(errors)
        if len(others) >= MAX_LIMITS:
            raise ConflictError(f"The plan {self._plan.plan} has {MAX_LIMITS} limits already.")
        (row,) = await limits.write_rows(write, [wish])
        if current is None:
            row.position = 1 + max((limit.position for limit in others), default=-1)
            self._plan.limits.append(row)
        await publish(write, self._plan)
        return row

    async def remove(self, write: ConfigWrite, row: LimitRow) -> None:
        """Take a limit out of the plan."""
        self._plan.limits.remove(row)
        await publish(write, self._plan)
