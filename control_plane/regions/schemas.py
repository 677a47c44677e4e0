"""The shapes of a region."""

from datetime import datetime
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, StringConstraints, field_validator

from control_plane.web.fields import Body, Name, View
from tidegate.contract.credentials import credential_kind


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


class RegionFields(Body):
    """What can be written of a region."""

    peer_url: PeerUrl | None = None
    """Where nodes of other regions reach this one's."""


class RegionCreate(RegionFields):
    """A new region."""

    region: Name


class RegionReplace(RegionFields):
    """A region as it shall be. ``credential`` sets an existing one (``tgr_...``) and needs the role admin."""

    region: Name | None = None
    credential: Annotated[str, StringConstraints(max_length=128)] | None = None

    @field_validator("credential")
    @classmethod
    def _is_region_credential(cls, value: str | None) -> str | None:
        if value is not None and credential_kind(value) != "region":
            raise ValueError("is not a region's credential (tgr_...) with a right checksum")
        return value


class RegionView(View):
    """A region as it is. ``public_key`` (Ed25519, hex) is null until it has a credential."""

    region: str
    peer_url: str | None
    public_key: str | None
    public_keys: list[str]
    """Every key that its nodes may sign with now: two while a rotation overlaps."""
    previous_expires_at: datetime | None
    """Until when the credential before the last rotation works too."""
