"""The shapes of a token."""

from datetime import datetime
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from control_plane.access.principals import TokenRole
from control_plane.web.fields import Body, ClientPrefix, Expiry, Name, OverlapS, View

MAX_SCOPE = 100
Dialect = Literal["envoy", "nginx", "traefik", "caddy", "haproxy"]


class TokenCreate(Body):
    """A new token: of an admin by its role, or of a gateway with the header dialect that it speaks."""

    name: Name
    role: TokenRole
    dialect: Dialect | None = None
    expires_at: Expiry | None = None
    plans: list[Name] = Field(default=[], max_length=MAX_SCOPE)
    """For a viewer or operator: the role holds for clients on these plans alone, and for the plans."""
    client_prefixes: list[ClientPrefix] = Field(default=[], max_length=MAX_SCOPE)
    """For a viewer or operator: the role holds for clients whose names begin like this alone."""

    @model_validator(mode="after")
    def _scope_of_roles_below_admin(self) -> Self:
        if (self.plans or self.client_prefixes) and self.role not in {"viewer", "operator"}:
            raise ValueError("plans and client_prefixes belong to the roles viewer and operator")
        return self

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
    plans: list[str]
    client_prefixes: list[str]
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
    plans: list[str]
    client_prefixes: list[str]
    dialect: Dialect | None
    expires_at: datetime | None
