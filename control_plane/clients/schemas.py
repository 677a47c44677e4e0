"""The shapes of clients, keys and overrides."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from contract.limits import MAX_LIMIT
from control_plane.web.fields import (
    AttributeName,
    AttributeValue,
    Body,
    ClientName,
    Expiry,
    Name,
    OverlapS,
    Sha256,
    Text,
    View,
)

Status = Literal["active", "suspended"]


class ClientFields(Body):
    """What can be written of a client."""

    plan: Name
    status: Status = "active"
    attributes: dict[AttributeName, AttributeValue] = Field(default={}, max_length=64)
    """What limits of scope `attribute:<name>` and `match.attributes` read."""
    external_id: Text | None = None
    """The client's name in another system, such as billing."""


class ClientCreate(ClientFields):
    """A new client."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"client": "acme", "plan": "free"}]})

    client: ClientName


class ClientReplace(ClientFields):
    """A client as it shall be; keys, overrides and counts stay."""

    client: ClientName | None = None


class ClientView(View):
    """A client as it is."""

    client: str
    plan: str
    status: Status
    attributes: dict[str, str]
    external_id: str | None
    generation: int
    """How often it was reset."""
    created_at: datetime


class LastingFigures(View):
    """A client's own figures for one limit, without an end."""

    limit: int
    burst: int | None


class OverrideFigures(LastingFigures):
    """A client's own figures for one limit, as the audit log keeps them; from ``expires_at`` on ``then``."""

    expires_at: datetime | None
    then: LastingFigures | None = None

    @property
    def lasting(self) -> LastingFigures | None:
        """What holds without an end: these, or what comes after them."""
        return self.then if self.expires_at is not None else LastingFigures(limit=self.limit, burst=self.burst)

    def at(self, now: datetime) -> LastingFigures | None:
        """What holds at ``now``."""
        return self if self.expires_at is None or self.expires_at > now else self.then


class ClientRecord(ClientView):
    """A client as the audit log keeps it: with its overrides by limit."""

    overrides: dict[str, OverrideFigures]


class ResetRequest(Body):
    """Nothing needs to be said."""


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


class LineError(View):
    """What is wrong with one line of an import, counted from 1."""

    line: int
    field: str
    message: str


class ImportResult(View):
    """What became of the lines. The first 100 errors are listed; ``refused`` counts all lines that were not taken."""

    revision: int
    lines: int
    made: int
    changed: int
    unchanged: int
    refused: int
    errors: list[LineError]


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


class OverrideReplace(Body):
    """A client's own figures for one limit of its plan."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"limit": 5000}]})

    limit: Annotated[int, Field(ge=0, le=MAX_LIMIT)]
    burst: Annotated[int, Field(ge=0, le=MAX_LIMIT)] | None = None
    expires_at: Expiry | None = None
    """With it the figures are temporary: what was there without an end comes back then, else the plan's figures."""


class OverrideView(View):
    """An override as it is."""

    client: str
    limit_name: str
    limit: int
    burst: int | None
    expires_at: datetime | None
    then: LastingFigures | None
    """What holds from `expires_at` on; `null`: the plan's figures."""
