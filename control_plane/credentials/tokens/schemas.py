"""The shapes of a token."""

from datetime import datetime
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from control_plane.access.principals import TokenRole
from control_plane.web.fields import Body, Expiry, Name, OverlapS, View

Dialect = Literal["envoy", "nginx", "traefik", "caddy", "haproxy"]


class TokenCreate(Body):
    """A new token: of an admin by its role, or of a gateway with the header dialect that it speaks."""

    name: Name
    role: TokenRole
    dialect: Dialect | None = None
    expires_at: Expiry | None = None

    @model_validator(mode="after")
    def _dialect_of_gateway(self) -> Self:
        if self.dialect is not None and self.role != "gateway":
            raise ValueError("dialect belongs to the role gateway")
        return self


class TokenView(View):
    """A token as it is; ``prefix`` is how its secret begins."""

    UNTAGGED: ClassVar[set[str]] = {"last_used"}

    token_id: str
    name: str
    role: TokenRole
    dialect: Dialect | None
    prefix: str | None
    created_at: datetime
    expires_at: datetime | None
    last_used: datetime | None
    """To the minute."""
    previous_expires_at: datetime | None
    """Until when the secret before the last rotation works too."""


class TokenRotate(Body):
    """A new secret for a token; the one before it works for ``overlap_s`` more seconds."""

    overlap_s: OverlapS = 0


class TokenCreated(View):
    """A new token; ``secret`` is shown this once."""

    token_id: str
    secret: str
    name: str
    role: TokenRole
    dialect: Dialect | None
    expires_at: datetime | None
