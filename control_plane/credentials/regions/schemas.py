"""The shapes of a region's credential."""

from datetime import datetime

from control_plane.web.fields import Body, OverlapS, View


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
