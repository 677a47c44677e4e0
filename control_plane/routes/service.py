"""What can be done with the route table."""

from datetime import datetime

from control_plane.adaptive.service import unknown_policy
from control_plane.errors import ConflictError, FieldError, InvalidError
from control_plane.orm import present
from control_plane.publishing.repository import DocumentKey
from control_plane.publishing.writer import ConfigWrite
from control_plane.resources import NamedRows, Resource
from control_plane.routes import repository
from control_plane.routes.models import BackendRow, EndpointRow
from control_plane.routes.schemas import (
    BackendFields,
    BackendView,
    CapacityView,
    EndpointFields,
    EndpointView,
    ManualFactorView,
    PullView,
)
from control_plane.web.fields import microseconds
from tidegate.contract.config import Endpoint, route_shape
from tidegate.contract.load import Backend, Capacity, ManualFactor, Pull, backend_violations

MANUAL_FACTOR = "manual factor"
"""As the audit log calls it."""


class Backends(Resource[BackendRow, BackendFields, BackendView]):
    """What serves endpoints."""

    noun = "backend"
    rows = repository.backends

    def view(self, row: BackendRow) -> BackendView:
        """Show a backend."""
        return BackendView(
            backend=row.backend,
            capacity=_capacity_view(row),
            adaptive=row.adaptive,
            pulls=[PullView.model_validate(pull) for pull in row.pulls],
        )

    async def save(self, write: ConfigWrite, name: str, body: BackendFields, current: BackendRow | None) -> BackendRow:
        """Make or change a backend; a manual factor stays as it is, and goes with the policy that applied it."""
        errors = await unknown_policy(write.session, body.adaptive)
        row = current or BackendRow(backend=name)
        row.adaptive = body.adaptive
        if row.adaptive is None:
            end_manual(write, row, await present(write.session))
        row.pulls = [pull.model_dump() for pull in body.pulls]
        _set_capacity(row, body)
        if body.capacity is not None and row.capacity_rule_id is None:
            row.capacity_rule_id, row.capacity_open_rule_id = await repository.next_rule_ids(write.session, 2)
        document = to_document(row)
        errors += [FieldError(_api_field(fault.field), fault.message) for fault in backend_violations(document)]
        if errors:
            raise InvalidError(errors)
        write.session.add(row)
        write.publish(document)
        return row

    async def remove(self, write: ConfigWrite, row: BackendRow) -> None:
        """Delete a backend that serves no endpoint and that no reporter speaks for."""
        end_manual(write, row, await present(write.session))
        await write.session.delete(row)
        write.withdraw(DocumentKey("backend", row.backend))


def manual_of(row: BackendRow, now: datetime) -> ManualFactorView | None:
    """The manual factor while it is in force."""
    if row.manual_factor is None or row.manual_expires_at is None or row.manual_expires_at <= now:
        return None
    return ManualFactorView(factor=row.manual_factor, expires_at=row.manual_expires_at, reason=row.manual_reason)


def end_manual(write: ConfigWrite, row: BackendRow, now: datetime) -> None:
    """Take the manual factor from a row, if it has one, and record that."""
    write.record(MANUAL_FACTOR, row.backend, manual_of(row, now), None)
    row.manual_factor = row.manual_expires_at = row.manual_reason = None


def to_document(row: BackendRow) -> Backend:
    """The backend as nodes get it."""
    manual = None
    if row.manual_factor is not None and row.manual_expires_at is not None:
        manual = ManualFactor(factor=row.manual_factor, expires_at=row.manual_expires_at.timestamp())
    return Backend(
        backend=row.backend,
        capacity=_capacity(row),
        adaptive=row.adaptive,
        manual=manual,
        pulls=tuple(Pull(**pull) for pull in row.pulls),
    )


def _capacity(row: BackendRow) -> Capacity | None:
    if row.capacity_limit is None or row.capacity_window_us is None:
        return None
    return Capacity(
        id=row.capacity_rule_id or 0,
        open_id=row.capacity_open_rule_id or 0,
        limit=row.capacity_limit,
        window_us=row.capacity_window_us,
        burst=row.capacity_burst,
    )


def _capacity_view(row: BackendRow) -> CapacityView | None:
    if row.capacity_limit is None or row.capacity_window_us is None:
        return None
    window_s = row.capacity_window_us / 1_000_000
    return CapacityView(limit=row.capacity_limit, window_s=window_s, burst=row.capacity_burst)


def _set_capacity(row: BackendRow, body: BackendFields) -> None:
    capacity = body.capacity
    row.capacity_limit = None if capacity is None else capacity.limit
    row.capacity_window_us = None if capacity is None else microseconds(capacity.window_s)
    row.capacity_burst = None if capacity is None else capacity.burst


def _api_field(field: str) -> str:
    return field.replace("window_us", "window_s")


class Endpoints(Resource[EndpointRow, EndpointFields, EndpointView]):
    """Routes: method and path template."""

    noun = "endpoint"
    rows = NamedRows(
        EndpointRow,
        EndpointRow.endpoint,
        sortable={"path": EndpointRow.path, "backend": EndpointRow.backend, "cost": EndpointRow.cost},
    )
    backends = Backends()

    def view(self, row: EndpointRow) -> EndpointView:
        """Show an endpoint."""
        return EndpointView.model_validate(row)

    async def save(
        self, write: ConfigWrite, name: str, body: EndpointFields, current: EndpointRow | None
    ) -> EndpointRow:
        """Make or change an endpoint; its backend must exist and its shape be its own."""
        if body.backend is not None and await self.backends.rows.find(write.session, body.backend) is None:
            raise InvalidError([FieldError("backend", f"there is no backend named {body.backend}")])
        shape = route_shape(body.method, body.path)
        other = await repository.endpoint_by_shape(write.session, shape)
        if other not in {None, name}:
            raise ConflictError(f"The endpoint {other} has this method and path already ({shape}).")
        row = current or EndpointRow(endpoint=name)
        row.method, row.path, row.shape = body.method, body.path, shape
        row.backend, row.cost, row.exempt = body.backend, body.cost, body.exempt
        write.session.add(row)
        write.publish(Endpoint(endpoint=name, **body.model_dump(exclude={"endpoint"})))
        return row

    async def remove(self, write: ConfigWrite, row: EndpointRow) -> None:
        """Delete an endpoint that no limit matches."""
        await write.session.delete(row)
        write.withdraw(DocumentKey("endpoint", row.endpoint))
