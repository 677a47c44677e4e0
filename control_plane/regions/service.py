"""What can be done with regions."""

from datetime import datetime, timedelta

from contract.config import Region
from contract.credentials import make_credential, region_public_key, secret_sha256
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
        row = current or RegionRow(region=name, public_key=None, credential_sha256=None)
        row.peer_url = body.peer_url
        if isinstance(body, RegionReplace) and body.credential is not None:
            _set_credential(row, body.credential, None)
        write.session.add(row)
        self._publish(write, row)
        return row

    async def remove(self, write: ConfigWrite, row: RegionRow) -> None:
        """Delete a region that no explicit quota names."""
        await write.session.delete(row)
        await write.session.flush()
        write.withdraw(DocumentKey("region", row.region))

    async def issue_credential(
        self,
        write: ConfigWrite,
        name: str,
        overlap_s: int,
        preconditions: Preconditions,
        *,
        now: datetime,
        random: bytes,
    ) -> RegionCredential:
        """Give the region a new credential from 32 random bytes; the one before it works ``overlap_s`` longer."""
        row = await self.row(write.session, name)
        credential = make_credential("region", random)
        before = self.view(row)
        preconditions.check(before)
        public_key = _set_credential(row, credential, now + timedelta(seconds=overlap_s) if overlap_s else None)
        self._publish(write, row)
        write.record(self.noun, name, before, self.view(row), "rotate")
        return RegionCredential(
            region=name,
            credential=credential,
            public_key=public_key,
            previous_expires_at=row.previous_expires_at,
        )

    def _publish(self, write: ConfigWrite, row: RegionRow) -> None:
        earlier = {}
        if row.previous_public_key is not None and row.previous_expires_at is not None:
            earlier[row.previous_public_key] = row.previous_expires_at.timestamp()
        write.publish(Region(region=row.region, peer_url=row.peer_url, public_key=row.public_key, public_keys=earlier))


def _set_credential(row: RegionRow, credential: str, keep_until: datetime | None) -> str:
    """Two credentials work until ``keep_until``; without it, and where there was none before, the new one alone."""
    sha256, public_key = secret_sha256(credential), region_public_key(credential)
    if sha256 == row.credential_sha256:
        return public_key
    keep = keep_until if row.credential_sha256 is not None else None
    row.previous_credential_sha256 = row.credential_sha256 if keep is not None else None
    row.previous_public_key = row.public_key if keep is not None else None
    row.previous_expires_at = keep
    row.credential_sha256, row.public_key = sha256, public_key
    return public_key
