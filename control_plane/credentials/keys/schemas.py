"""The shapes of keys."""

from datetime import datetime
from typing import Annotated, ClassVar, Self

from pydantic import Field, StringConstraints, model_validator

from control_plane.web.fields import (
    Body,
    ClientName,
    Expiry,
    OverlapS,
    Sha256,
    Text,
    View,
)


class KeyCreate(Body):
    """A new key. With neither `secret` nor `secret_sha256` the secret is made here and shown once."""

    name: Text | None = None
    expires_at: Expiry | None = None
    secret: (
        Annotated[
            str,
            StringConstraints(min_length=22, max_length=256, pattern=r"^[!-+\--~]+$"),
            Field(
                description="An existing secret of at least 128 random bits, without commas (they separate headers)."
            ),
        ]
        | None
    ) = None
    secret_sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if self.secret is not None and self.secret_sha256 is not None:
            raise ValueError("give secret or secret_sha256, not both")
        return self


class KeyImport(KeyCreate):
    """An existing key, as a line of an import."""

    client: ClientName

    @model_validator(mode="after")
    def _some_secret(self) -> Self:
        if self.secret is None and self.secret_sha256 is None:
            raise ValueError("give secret or secret_sha256")
        return self


class KeyCreated(View):
    """A new key. ``secret`` is shown this once, and null when it was not made here."""

    key_id: str
    secret: str | None
    client: str
    name: str | None
    prefix: str | None
    expires_at: datetime | None


class KeyView(View):
    """A key as it is, without secret or hash; ``prefix`` is how its secret begins, if that was seen."""

    UNTAGGED: ClassVar[set[str]] = {"last_used"}

    key_id: str
    client: str
    name: str | None
    prefix: str | None
    created_at: datetime
    expires_at: datetime | None
    last_used: datetime | None
    """As nodes reported it, a minute or so behind."""


class KeyRotate(Body):
    """A new key in place of one that goes on working for ``overlap_s`` seconds."""

    overlap_s: OverlapS = 0
    name: Text | None = None
    """That of the key before it by default."""
    expires_at: Expiry | None = None
