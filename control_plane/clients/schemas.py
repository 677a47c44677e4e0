"""The shapes of clients and overrides."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from control_plane.web.fields import (
    AttributeName,
    AttributeValue,
    Body,
    ClientName,
    Expiry,
    Name,
    Text,
    View,
)
from tidegate.contract.limits import MAX_LIMIT

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
    """A client as it shall be; keys and counts stay, and overrides as far as they fit its plan."""

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
