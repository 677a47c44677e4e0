"""What can be done with regions."""

from contract.config import Region
from contract.credentials import region_public_key
from control_plane.credentials.rotation import Rotation, rotate
from control_plane.regions.models import RegionRow
from control_plane.regions.schemas import RegionCredential, RegionFields, RegionReplace, RegionView
from control_plane.resources import Resource
from control_plane.rollout.documents import DocumentKey
from control_plane.rollout.write import ConfigWrite
from control_plane.storage import NamedRows
from control_plane.web.etags import Preconditions


class Regions(Resource[RegionRow, RegionFields, RegionView]):
    """Regions. When one comes or goes, quotas are distributed anew (``control_plane.derivation``)."""

    noun = "region"
    rows = NamedRows(RegionRow, RegionRow.region)

    def name_of(self, row: RegionRow) -> str:
        """The region's name."""
        return row.region

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
        _publish(write, row)
        return row

    async def remove(self, write: ConfigWrite, row: RegionRow) -> None:
        """Delete a region that no explicit quota names."""
        await write.session.delete(row)
        await write.session.flush()
        write.withdraw(DocumentKey("region", row.region))

    async def rotate(
        self, write: ConfigWrite, name: str, rotation: Rotation, preconditions: Preconditions
    ) -> RegionCredential:
        """Give the region a credential; the one before it, if there was one, works as long as the rotation says."""
        row = await self.row(write.session, name)
        credential = rotate(
            write,
            row,
            "region",
            rotation,
            preconditions,
            resource=self.noun,
            name=name,
            view=self.view,
            publish=_publish,
        )
        return RegionCredential(
            region=name,
            credential=credential,
            public_key=region_public_key(credential),
            previous_expires_at=row.previous_expires_at,
        )


def _publish(write: ConfigWrite, row: RegionRow) -> None:
    earlier = {}
    if row.previous_public_key is not None and row.previous_expires_at is not None:
        earlier[row.previous_public_key] = row.previous_expires_at.timestamp()
    write.publish(Region(region=row.region, peer_url=row.peer_url, public_key=row.public_key, public_keys=earlier))
