"""What can be done with reporters."""

from control_plane.credentials.reporters.models import ReporterBackend, ReporterRow
from control_plane.credentials.reporters.schemas import ReporterCreated, ReporterFields, ReporterView
from control_plane.credentials.rotation import Rotation, rotate
from control_plane.errors import ConflictError, FieldError, InvalidError
from control_plane.publishing.repository import DocumentKey
from control_plane.publishing.writer import ConfigWrite
from control_plane.resources import NamedRows, Resource
from control_plane.routes.repository import backends
from control_plane.web.etags import Preconditions
from tidegate.contract.credentials import make_credential
from tidegate.contract.load import Reporter


class Reporters(Resource[ReporterRow, ReporterFields, ReporterView]):
    """Who reports load. A reporter is made by ``issue``, since its credential is shown once."""

    noun = "reporter"
    rows = NamedRows(ReporterRow, ReporterRow.reporter, sortable={"created_at": ReporterRow.created_at})

    def view(self, row: ReporterRow) -> ReporterView:
        """Show a reporter, never its credential's hash."""
        return ReporterView(
            reporter=row.reporter,
            backends=[item.backend for item in row.backends],
            prefix=row.prefix,
            created_at=row.created_at,
        )

    async def save(
        self, write: ConfigWrite, name: str, body: ReporterFields, current: ReporterRow | None
    ) -> ReporterRow:
        """Change what a reporter may speak for."""
        if current is None:
            raise self.missing(name)
        await _set_backends(write, current, body.backends)
        write.publish(to_document(current))
        return current

    async def remove(self, write: ConfigWrite, row: ReporterRow) -> None:
        """End a reporter: its credential ceases to work."""
        await write.session.delete(row)
        write.withdraw(DocumentKey("reporter", row.reporter))

    async def issue(self, write: ConfigWrite, name: str, body: ReporterFields, random: bytes) -> ReporterCreated:
        """Make a reporter with a credential from 32 random bytes."""
        if await self.rows.find(write.session, name) is not None:
            raise ConflictError(f"There is a reporter named {name} already.")
        secret = make_credential("reporter", random)
        row = ReporterRow(reporter=name, backends=[])
        row.take_secret(secret, None)
        await _set_backends(write, row, body.backends)
        write.session.add(row)
        await write.session.flush()
        await write.session.refresh(row)
        write.publish(to_document(row))
        write.record(self.noun, name, None, self.view(row))
        return _created(row, secret)

    async def rotate(
        self, write: ConfigWrite, name: str, rotation: Rotation, preconditions: Preconditions
    ) -> ReporterCreated:
        """Give a reporter another credential; the one before it works as long as the rotation says."""
        row = await self.row(write.session, name)
        secret = rotate(
            write,
            row,
            "reporter",
            rotation,
            preconditions,
            resource=self.noun,
            name=name,
            view=self.view,
            publish=_publish,
        )
        return _created(row, secret)


def _publish(write: ConfigWrite, row: ReporterRow) -> None:
    write.publish(to_document(row))


async def _set_backends(write: ConfigWrite, row: ReporterRow, names: list[str]) -> None:
    existing = await backends.existing(write.session, names)
    errors = [
        FieldError(f"backends[{place}]", f"there is no backend named {name}")
        for place, name in enumerate(names)
        if name not in existing
    ]
    if len(set(names)) != len(names):
        errors.append(FieldError("backends", "names one twice"))
    if errors:
        raise InvalidError(errors)
    kept = {item.backend: item for item in row.backends}
    row.backends = [kept.get(name) or ReporterBackend(backend=name) for name in sorted(names)]


def to_document(row: ReporterRow) -> Reporter:
    """What nodes get of a reporter."""
    expires_at = None if row.previous_expires_at is None else row.previous_expires_at.timestamp()
    return Reporter(
        reporter=row.reporter,
        sha256=row.sha256,
        backends=tuple(sorted(item.backend for item in row.backends)),
        previous_sha256=row.previous_sha256,
        previous_expires_at=expires_at,
    )


def _created(row: ReporterRow, secret: str) -> ReporterCreated:
    return ReporterCreated(reporter=row.reporter, backends=[item.backend for item in row.backends], secret=secret)
