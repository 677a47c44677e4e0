"""Service of enforcement overrides."""

from typing import cast

from control_plane.enforcement import repository
from control_plane.enforcement.models import SwitchRow
from control_plane.enforcement.schemas import SwitchReplace, SwitchView
from control_plane.publishing.repository import DocumentKey
from control_plane.publishing.writer import ConfigWrite
from control_plane.resources import Resource
from tidegate.contract.blocks import Switch, SwitchMode


class Switches(Resource[SwitchRow, SwitchReplace, SwitchView]):
    """Enforcement overrides by target."""

    noun = "switch"
    rows = repository.switches

    def name_of(self, row: SwitchRow) -> str:
        """The override's target."""
        return row.target

    def view(self, row: SwitchRow) -> SwitchView:
        """The view of an override."""
        return SwitchView(
            target=row.target,
            mode=cast("SwitchMode", row.mode),
            expires_at=row.expires_at,
            reason=row.reason,
            set_at=row.set_at,
        )

    async def save(self, write: ConfigWrite, name: str, body: SwitchReplace, current: SwitchRow | None) -> SwitchRow:
        """Set the override."""
        row = current or SwitchRow(target=name)
        row.mode, row.reason, row.expires_at = body.mode, body.reason, body.expires_at
        write.session.add(row)
        await write.session.flush()
        write.publish(to_document(row))
        return row

    async def remove(self, write: ConfigWrite, row: SwitchRow) -> None:
        """Delete the override."""
        await write.session.delete(row)
        write.withdraw(DocumentKey("enforcement", row.target))


def to_document(row: SwitchRow) -> Switch:
    """The document of an enforcement override."""
    expires_at = None if row.expires_at is None else row.expires_at.timestamp()
    return Switch(target=row.target, mode=cast("SwitchMode", row.mode), expires_at=expires_at)


async def forget_expired(write: ConfigWrite) -> int:
    """Delete ended overrides, which nodes have ended themselves. Returns how many."""
    targets = await repository.delete_ended(write.session)
    for target in targets:
        write.withdraw(DocumentKey("enforcement", target))
    return len(targets)
