"""Service of clients."""

from datetime import datetime

from pydantic import BaseModel

from control_plane.clients import repository, writes
from control_plane.clients.figures import client_document, faults, figures_of
from control_plane.clients.models import ClientRow, OverrideRow
from control_plane.clients.schemas import (
    ClientFields,
    ClientRecord,
    ClientView,
    LastingFigures,
    OverrideReplace,
    OverrideView,
)
from control_plane.errors import ConflictError, FieldError, InvalidError, NotFoundError
from control_plane.limits.service import Plans, to_rule
from control_plane.orm import has_ended
from control_plane.publishing.writer import ConfigWrite
from control_plane.resources import Resource
from control_plane.web.etags import Preconditions

MAX_OVERRIDES = 100


def publish(write: ConfigWrite, row: ClientRow) -> None:
    """Publish the client as its rows are now."""
    write.publish(client_document(to_record(row)))


def to_record(row: ClientRow) -> ClientRecord:
    """A client in the audit log."""
    overrides = {override.limit_name: figures_of(override) for override in row.overrides}
    return ClientRecord(**ClientView.model_validate(row).model_dump(), overrides=overrides)


class Clients(Resource[ClientRow, ClientFields, ClientView]):
    """Clients, each on one plan."""

    noun = "client"
    rows = repository.clients

    def view(self, row: ClientRow) -> ClientView:
        """Show a client."""
        return ClientView.model_validate(row)

    def audited(self, row: ClientRow) -> ClientRecord:
        """The client with its overrides."""
        return to_record(row)

    async def save(self, write: ConfigWrite, name: str, body: ClientFields, current: ClientRow | None) -> ClientRow:
        """Create or change a client; its plan must exist. Overrides stay as far as they fit its plan."""
        before = {} if current is None else {name: to_record(current)}
        wish = writes.ClientWish(name, body, {}, before[name].overrides if before else {})
        rules = await writes.rules_of(write.session, [body.plan])
        wrong = list(writes.faults(wish, rules, ""))
        if wrong:
            raise InvalidError(wrong)
        made = await writes.put_part(write, [wish], rules, before)
        if current is not None:
            write.session.expire(current)
        return ClientRow(**made[name].model_dump(exclude={"overrides"}))

    async def remove(self, write: ConfigWrite, row: ClientRow) -> None:
        """Delete a client with its keys and overrides."""
        await writes.delete(write, [row.client])

    def record(self, write: ConfigWrite, name: str, before: BaseModel | None, row: ClientRow | None) -> None:
        """Does nothing, as the writer of clients records them."""

    async def reset(self, write: ConfigWrite, name: str, preconditions: Preconditions) -> ClientView:
        """Raise the client's generation: every region abandons what it counted for it."""
        row = await self.row(write.session, name)
        preconditions.check(self.view(row))
        before = to_record(row)
        row.generation += 1
        publish(write, row)
        write.record(self.noun, name, before, to_record(row), "reset")
        return self.view(row)


def end_overrides(row: ClientRow, now: datetime) -> None:
    """Replace overrides that ended by ``now`` by what follows them."""
    for override in [one for one in row.overrides if has_ended(one.expires_at, now)]:
        then = figures_of(override).then
        if then is None:
            row.overrides.remove(override)
        else:
            override.limit, override.burst = then.limit, then.burst
            override.expires_at = override.then_limit = override.then_burst = None


class Overrides(Resource[OverrideRow, OverrideReplace, OverrideView]):
    """One client's own figures for limits of its plan."""

    noun = "override"
    plans = Plans()

    def __init__(self, client: ClientRow) -> None:
        self._client = client
        self._before = to_record(client)
        self.rows = repository.overrides_of(client.client)

    def record(self, write: ConfigWrite, name: str, before: BaseModel | None, row: OverrideRow | None) -> None:  # noqa: ARG002  # the client says it all
        """Record the client as a whole."""
        after = to_record(self._client)
        write.record("client", self._client.client, self._before, after)
        self._before = after

    def ended(self, row: OverrideRow, now: datetime) -> bool:
        """Whether the override has expired, and no figures follow it."""
        return super().ended(row, now) and row.then_limit is None

    def view(self, row: OverrideRow) -> OverrideView:
        """Show an override."""
        return OverrideView(
            client=row.client,
            limit_name=row.limit_name,
            limit=row.limit,
            burst=row.burst,
            expires_at=row.expires_at,
            then=figures_of(row).then,
        )

    def missing(self, name: str) -> NotFoundError:
        """The error for a limit without an override."""
        return NotFoundError(f"The client {self._client.client} has no override of a limit named {name}.")

    async def save(
        self, write: ConfigWrite, name: str, body: OverrideReplace, current: OverrideRow | None
    ) -> OverrideRow:
        """Make or change an override of a limit that the client's plan has.

        One that expires is put before the one without an end, if there is one. One without an end stands alone.
        """
        plan = await self.plans.row(write.session, self._client.plan)
        limit = next((limit for limit in plan.limits if limit.name == name), None)
        if limit is None:
            raise NotFoundError(f"The client's plan {plan.plan} has no limit named {name}.")
        rule = to_rule(limit, ())
        wrong = list(faults(rule, LastingFigures(limit=body.limit, burst=body.burst)))
        if len(self._client.overrides) >= MAX_OVERRIDES and current is None:
            raise ConflictError(f"The client {self._client.client} has {MAX_OVERRIDES} overrides already.")
        if wrong:
            raise InvalidError(FieldError(fault.field, fault.message) for fault in wrong)
        row = current or OverrideRow(client=self._client.client, limit_name=name)
        lasting = figures_of(current).lasting if current is not None and body.expires_at is not None else None
        row.limit, row.burst, row.expires_at = body.limit, body.burst, body.expires_at
        row.then_limit, row.then_burst = (None, None) if lasting is None else (lasting.limit, lasting.burst)
        if current is None:
            self._client.overrides.append(row)
        publish(write, self._client)
        return row

    async def remove(self, write: ConfigWrite, row: OverrideRow) -> None:
        """Delete the override: the plan's figures apply."""
        self._client.overrides.remove(row)
        publish(write, self._client)
