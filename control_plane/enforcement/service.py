"""Service of enforcement overrides."""

from typing import cast

from control_plane.enforcement import repository
from control_plane.enforcement.models import EnforcementRow
from control_plane.enforcement.schemas import EnforcementReplace, EnforcementView
from control_plane.errors import NotFoundError
from control_plane.publishing.repository import DocumentKey
from control_plane.publishing.writer import ConfigWrite
from control_plane.resources import Resource
from tidegate.contract.blocks import EnforcementMode, EnforcementOverride


class EnforcementOverrides(Resource[EnforcementRow, EnforcementReplace, EnforcementView]):
    """Enforcement overrides by target."""

    noun = "switch"
    """As the audit log has always called it."""
    rows = repository.overrides

    def view(self, row: EnforcementRow) -> EnforcementView:
        """The view of an override."""
        return EnforcementView.model_validate(row)

    def missing(self, name: str) -> NotFoundError:
        """The error for a target without an override."""
        return NotFoundError(f"There is no enforcement override of {name}.")

    async def save(
        self, write: ConfigWrite, name: str, body: EnforcementReplace, current: EnforcementRow | None
    ) -> EnforcementRow:
        """Set the override."""
        row = current or EnforcementRow(target=name)
        row.mode, row.reason, row.expires_at = body.mode, body.reason, body.expires_at
        write.session.add(row)
        await write.session.flush()
        write.publish(to_document(row))
        return row

    async def remove(self, write: ConfigWrite, row: EnforcementRow) -> None:
        """Delete the override."""
        await write.session.delete(row)
        write.withdraw(DocumentKey("enforcement", row.target))


def to_document(row: EnforcementRow) -> EnforcementOverride:
    """The document of an enforcement override."""
    expires_at = None if row.expires_at is None else row.expires_at.timestamp()
    return EnforcementOverride(target=row.target, mode=cast("EnforcementMode", row.mode), expires_at=expires_at)
