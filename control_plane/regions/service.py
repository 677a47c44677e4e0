"""What can be done with regions."""

from control_plane.publishing.repository import DocumentKey
from control_plane.publishing.writer import ConfigWrite
from control_plane.regions.models import RegionRow
from control_plane.regions.schemas import RegionFields, RegionReplace, RegionView
from control_plane.resources import NamedRows, Resource
from tidegate.contract.config import Region


class Regions(Resource[RegionRow, RegionFields, RegionView]):
    """Regions. When one comes or goes, quotas are distributed anew (``control_plane.derivation``)."""

    noun = "region"
    rows = NamedRows(RegionRow, RegionRow.region)

    def view(self, row: RegionRow) -> RegionView:
        """Show a region, never its credential's hash."""
        keys = [key for key in (row.public_key, row.previous_public_key) if key is not None]
        return RegionView(
            region=row.region,
            peer_url=row.peer_url,
            public_key=row.public_key,
            public_keys=keys,
            previous_expires_at=row.previous_expires_at,
        )

    async def save(self, write: ConfigWrite, name: str, body: RegionFields, current: RegionRow | None) -> RegionRow:
        """Make or change a region."""
        row = current or RegionRow(region=name, public_key=None, sha256=None)
        row.peer_url = body.peer_url
        if isinstance(body, RegionReplace) and body.credential is not None:
            row.take_secret(body.credential, None)
        write.session.add(row)
        publish(write, row)
        return row

    async def remove(self, write: ConfigWrite, row: RegionRow) -> None:
        """Delete a region that no explicit quota names."""
        await write.session.delete(row)
        await write.session.flush()
        write.withdraw(DocumentKey("region", row.region))


def publish(write: ConfigWrite, row: RegionRow) -> None:
    """From this revision on, nodes have the region as its row is now."""
    earlier = {}
    if row.previous_public_key is not None and row.previous_expires_at is not None:
        earlier[row.previous_public_key] = row.previous_expires_at.timestamp()
    write.publish(Region(region=row.region, peer_url=row.peer_url, public_key=row.public_key, public_keys=earlier))
