"""``POST /v1/regions/{region}/credentials``."""

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from control_plane.access.principals import admin_only, by_method
from control_plane.credentials.regions import service as credentials
from control_plane.credentials.regions.schemas import CredentialRequest, RegionCredential
from control_plane.credentials.rotation import Rotation
from control_plane.publishing.change import Changing
from control_plane.web.fields import Name

router = APIRouter(prefix="/v1/regions", tags=["regions"], dependencies=[Depends(by_method)])
NO_OVERLAP = CredentialRequest()


@router.post(
    "/{region}/credentials", status_code=201, response_model=RegionCredential, dependencies=[Depends(admin_only)]
)
async def issue_region_credential(region: Name, change: Changing, body: CredentialRequest = NO_OVERLAP) -> Response:
    """Give the region's nodes a new credential, shown this once; the one before it works `overlap_s` longer."""
    async with change.begin(urgent=True) as write:
        rotation = Rotation.beginning_now(body.overlap_s)
        view = await credentials.rotate_credential(write, region, rotation, change.preconditions)
    return await change.answer(view, 201, secret=True)
