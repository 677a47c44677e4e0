"""The credential of a region, which its nodes and agents share."""

from control_plane.credentials.regions.schemas import RegionCredential
from control_plane.credentials.rotation import Rotation, rotate
from control_plane.publishing.writer import ConfigWrite
from control_plane.regions.service import Regions, publish
from control_plane.web.etags import Preconditions
from tidegate.contract.credentials import region_public_key

_regions = Regions()


async def rotate_credential(
    write: ConfigWrite, region: str, rotation: Rotation, preconditions: Preconditions
) -> RegionCredential:
    """Give the region a credential; the one before it, if there was one, works as long as the rotation says."""
    row = await _regions.row(write.session, region)
    credential = rotate(
        write,
        row,
        "region",
        rotation,
        preconditions,
        resource=_regions.noun,
        name=region,
        view=_regions.view,
        publish=publish,
    )
    return RegionCredential(
        region=region,
        credential=credential,
        public_key=region_public_key(credential),
        previous_expires_at=row.previous_expires_at,
    )
