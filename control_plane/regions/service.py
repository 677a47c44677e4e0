"""What can be done with regions."""

from collections.abc import Awaitable, Callable

from contract.config import Region
from contract.credentials import make_credential, region_public_key, secret_sha256
from control_plane.regions.models import RegionRow
from control_plane.regions.schemas import RegionCredential, RegionFields, RegionReplace, RegionView
from control_plane.resources import Resource
from control_plane.rollout.documents import DocumentKey
from control_plane.rollout.writer import ConfigWrite
from control_plane.storage import NamedRows

Redistribute = Callable[[ConfigWrite], Awaitable[None]]
"""Give every limit its shares anew: what must follow when regions come or go."""


class Regions(Resource[RegionRow, RegionFields, RegionView]):
    """Regions, and after each coming or going a new distribution of quotas."""

    noun = "region"
    rows = NamedRows(RegionRow, RegionRow.region)

    def __init__(self, redistribute: Redistribute) -> None:
        self._redistribute = redistribute

    def name_of(self, row: RegionRow) -> str:
        """The region's name."""
        return row.region

    def view(self, row: RegionRow) -> RegionView:
        """Show a region, never its credential's hash."""
        return RegionView(region=row.region, peer_url=row.peer_url, public_key=row.public_key)

    async def save(self, write: ConfigWrite, name: str, body: RegionFields, current: RegionRow | None) -> RegionRow:
        """Make or change a region."""
        row = current or RegionRow(region=name, public_key=None, credential_sha256=None)
        row.peer_url = body.peer_url
        if isinstance(body, RegionReplace) and body.credential is not None:
            _set_credential(row, body.credential)
        write.session.add(row)
        self._publish(write, row)
        if current is None:
            await write.session.flush()
            await self._redistribute(write)
        return row

    async def remove(self, write: ConfigWrite, row: RegionRow) -> None:
        """Delete a region that no explicit quota names."""
        await write.session.delete(row)
        await write.session.flush()
        write.withdraw(DocumentKey("region", row.region))
        await self._redistribute(write)

    async def issue_credential(self, write: ConfigWrite, name: str, random: bytes) -> RegionCredential:
        """Give the region a new credential from 32 random bytes; the one before ceases to work."""
        row = await self.row(write.session, name)
        credential = make_credential("region", random)
        before = self.view(row)
        public_key = _set_credential(row, credential)
        self._publish(write, row)
        write.record(self.noun, name, before, self.view(row), "rotate")
        return RegionCredential(region=name, credential=credential, public_key=public_key)

    def _publish(self, write: ConfigWrite, row: RegionRow) -> None:
        write.publish(Region(region=row.region, peer_url=row.peer_url, public_key=row.public_key))


def _set_credential(row: RegionRow, credential: str) -> str:
    row.credential_sha256 = secret_sha256(credential)
    row.public_key = region_public_key(credential)
    return row.public_key
