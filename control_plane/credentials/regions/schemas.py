"""The shapes of a region's credential."""

from datetime import datetime
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, StringConstraints

from control_plane.web.fields import Body, OverlapS, View


def _peer_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise ValueError("must be http:// or https:// with a host")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError("must hold no query, fragment or user")
    return value.rstrip("/")


PeerUrl = Annotated[str, StringConstraints(max_length=512, pattern=r"^https?://[!-~]+$"), AfterValidator(_peer_url)]


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
