"""The shapes of a block."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from control_plane.web.fields import Body, ClientName, Expiry, Name, Text, View
from tidegate.contract.blocks import ReasonClass

KeyId = Annotated[str, StringConstraints(pattern=r"^key_[0-9a-f]{16}$")]


class BlockFields(Body):
    """Whom to refuse: exactly one of `client`, `key_id`, `ip` and `endpoint`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"block": "scraper", "ip": "203.0.113.0/24"}]})

    client: ClientName | None = None
    key_id: KeyId | None = None
    ip: Annotated[str, StringConstraints(min_length=2, max_length=64), Field(examples=["203.0.113.0/24"])] | None = None
    """An address or a CIDR block, IPv4 or IPv6."""
    endpoint: Name | None = None
    reason: Text | None = None
    """For admins; callers see `reason_class` only."""
    reason_class: ReasonClass = "other"
    expires_at: Expiry | None = None
    """Nodes end the block by themselves at this instant."""

    @model_validator(mode="after")
    def _one_subject(self) -> Self:
        if sum(subject is not None for subject in (self.client, self.key_id, self.ip, self.endpoint)) != 1:
            raise ValueError("give exactly one of client, key_id, ip and endpoint")
        return self


class BlockCreate(BlockFields):
    """A new block; without a name it gets one."""

    block: Name | None = None


class BlockReplace(BlockFields):
    """A block as it shall be."""

    block: Name | None = None


class BlockView(View):
    """A block as it is; one whose time is over is gone a moment later."""

    block: str
    client: str | None
    key_id: str | None
    ip: str | None
    endpoint: str | None
    reason: str | None
    reason_class: ReasonClass
    expires_at: datetime | None
    created_at: datetime
