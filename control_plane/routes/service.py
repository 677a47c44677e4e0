"""What can be done with the route table."""

from contract.config import Endpoint
from contract.load import Backend
from control_plane.errors import ConflictError, FieldError, InvalidError
from control_plane.resources import Resource
from control_plane.rollout.documents import DocumentKey
from control_plane.rollout.writer import ConfigWrite
from control_plane.routes import repository
from control_plane.routes.models import BackendRow, EndpointRow
from control_plane.routes.schemas import BackendFields, BackendView, EndpointFields, EndpointView
from control_plane.routes.templates import route_shape
from control_plane.storage import NamedRows


class Backends(Resource[BackendRow, BackendFields, BackendView]):
    """What serves endpoints."""

    noun = "backend"
    rows = NamedRows(BackendRow, BackendRow.backend)

    def name_of(self, row: BackendRow) -> str:
        """The backend's name."""
        return row.backend

    def view(self, row: BackendRow) -> BackendView:
        """Show a backend."""
        return BackendView(backend=row.backend)

    async def save(self, write: ConfigWrite, name: str, body: BackendFields, current: BackendRow | None) -> BackendRow:  # noqa: ARG002  # nothing to write of it yet
        """Make a backend."""
        row = current or BackendRow(backend=name)
        write.session.add(row)
        write.publish(Backend(backend=name))
        return row

    async def remove(self, write: ConfigWrite, row: BackendRow) -> None:
        """Delete a backend that serves no endpoint."""
        await write.session.delete(row)
        write.withdraw(DocumentKey("backend", row.backend))


class Endpoints(Resource[EndpointRow, EndpointFields, EndpointView]):
    """Routes: method and path template."""

    noun = "endpoint"
    rows = NamedRows(EndpointRow, EndpointRow.endpoint)
    backends = Backends()

    def name_of(self, row: EndpointRow) -> str:
        """The endpoint's name."""
        return row.endpoint

    def view(self, row: EndpointRow) -> EndpointView:
        """Show an endpoint."""
        return EndpointView(
            endpoint=row.endpoint,
            method=row.method,
            path=row.path,
            backend=row.backend,
            cost=row.cost,
            exempt=row.exempt,
        )

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
