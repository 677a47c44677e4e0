"""``POST /v1/regions/{region}/credentials``: the credential by which a region's nodes and agents are known."""

from datetime import datetime

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from control_plane.access.principals import admin_only, by_method
from control_plane.credentials.rotation import Rotation, rotate
from control_plane.publishing.writer import Changing, ConfigWrite
from control_plane.regions.service import Regions, publish
from control_plane.web.etags import Preconditions
from control_plane.web.fields import Body, Name, OverlapS, View
from tidegate.contract.credentials import region_public_key

router = APIRouter(prefix="/v1/regions", tags=["regions"], dependencies=[Depends(by_method)])
_regions = Regions()


class CredentialRequest(Body):
    """A new credential; the one before it works for ``overlap_s`` more seconds."""

    overlap_s: OverlapS = 0


class RegionCredential(View):
    """A region's credential, shown this once."""

    region: str
    credential: str
    public_key: str
    previous_expires_at: datetime | None
    """Until when the credential before it works too."""


NO_OVERLAP = CredentialRequest()


@router.post(
    "/{region}/credentials", status_code=201, response_model=RegionCredential, dependencies=[Depends(admin_only)]
)
async def issue_region_credential(region: Name, change: Changing, body: CredentialRequest = NO_OVERLAP) -> Response:
    """Give the region's nodes a new credential, shown this once; the one before it works `overlap_s` longer."""
    async with change.begin(urgent=True) as write:
        rotation = Rotation.beginning_now(body.overlap_s)
        view = await rotate_credential(write, region, rotation, change.preconditions)
    return await change.answer(view, 201, secret=True)


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
