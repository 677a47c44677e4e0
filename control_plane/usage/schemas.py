"""The shapes of usage as it is read."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from control_plane.web.fields import Body, Name, View

Dimension = Literal["client", "plan", "limit", "endpoint", "region", "key"]
DIMENSIONS: tuple[Dimension, ...] = ("client", "plan", "limit", "endpoint", "region", "key")
Step = Literal["hour", "day", "none"]

Completeness = Annotated[
    Mapping[str, datetime | None],
    Field(description="by region: everything that was counted there before this instant is in the figures"),
]


class Figures(View):
    """What was counted."""

    allowed: int
    denied: int
    shadow_denied: int
    """Requests that a limit in shadow would have denied."""
    cost: int
    """Units that the allowed requests took."""
    denied_cost: int
    """Units that the denied requests asked for."""


class UsageItem(Figures):
    """One line of usage; a member that was not asked for is null."""

    hour: datetime | None = None
    day: date | None = None
    client: str | None = None
    """Null for anonymous callers as well."""
    plan: str | None = None
    """The caller's plan; in lines of limits the limit's plan, `_` outside plans."""
    limit: str | None = None
    endpoint: str | None = None
    region: str | None = None
    key_id: str | None = None


class UsageListing(View):
    """A page of usage, and up to when it is complete."""

    items: list[UsageItem]
    next_cursor: str | None
    complete_until: Completeness
    live: Annotated[
        Mapping[str, str | None] | None,
        Field(
            description="with `live`, by region: null where what waited in its stream is in the figures, else why not"
        ),
    ] = None


class BusyClient(Figures):
    """A client and what it did."""

    client: str | None


class BusiestClients(View):
    """The clients that did most, most first."""

    items: list[BusyClient]
    complete_until: Completeness


class NearLimit(View):
    """A client near one of its limits."""

    client: str
    limit: str
    used: int
    of: int
    share: float
    """`used / of`"""
    window_start: datetime


class SkippedLimit(View):
    """A limit that hourly usage cannot evaluate."""

    limit: str
    reason: str


class NearLimitView(View):
    """Clients of a plan near their limits, nearest first."""

    items: list[NearLimit]
    skipped: list[SkippedLimit]
    complete_until: Completeness


CalendarWindow = Literal["minute", "hour", "day", "week", "month"]


class WhatIfLimit(Body):
    """The limit as it would be."""

    limit: Annotated[int, Field(ge=0, le=10**12)]
    window_s: Annotated[float, Field(gt=0, le=366 * 86_400)] | None = None
    window: CalendarWindow | None = None
    endpoints: list[Name] = Field(default=[], max_length=100)
    """Only requests to these; empty: to all."""


class WhatIfRequest(Body):
    """Which limits, and over how many days: exactly one of `limit`, `limits` and `plan`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"plan": "pro", "days": 7}]})

    limit: WhatIfLimit | None = None
    limits: Annotated[list[WhatIfLimit], Field(min_length=1, max_length=20)] | None = None
    plan: Name | None = None
    """The limits of this plan, as if the clients were on it; overrides are not looked at."""
    days: Annotated[int, Field(ge=1, le=31)] = 7


class WhatIfClient(View):
    """A client that the limits would have denied."""

    client: str
    requests: int
    would_deny: int


class WhatIfOfLimit(View):
    """What one of the limits would have denied by itself."""

    limit: str
    """Its name in the plan, or its field in the question."""
    would_deny: int
    approximation: str


_WHAT_IF: dict[str, Any] = {
    "clients_total": 100_000,
    "requests": 310_000,
    "denied": 900,
    "would_deny": 1_200,
    "would_deny_at_most": 1_200,
    "clients": 31,
    "most_affected": [{"client": "acme", "requests": 7_100, "would_deny": 340}],
    "limits": [{"limit": "limit", "would_deny": 1_200, "approximation": "An estimate from hourly sums. ..."}],
    "skipped": [],
    "since": "2026-11-19T12:00:00Z",
    "approximation": "An estimate from hourly sums. ...",
    "complete_until": {"us-east": "2026-11-26T12:34:54Z"},
}


class WhatIfView(View):
    """What the limits would have done to the plan's clients."""

    model_config = ConfigDict(json_schema_extra={"examples": [_WHAT_IF]})

    clients_total: Annotated[int, Field(description="clients that are on the plan")]
    requests: int
    """Requests of these clients on this plan in these days, whatever became of them."""
    denied: int
    """Those that were denied."""
    would_deny: int
    """Those that the limit would have denied; of several limits at least so many."""
    would_deny_at_most: int
    """With several limits: as if no request were denied by two of them."""
    clients: int
    """Clients that would have been denied at least once."""
    most_affected: list[WhatIfClient]
    limits: list[WhatIfOfLimit]
    skipped: list[SkippedLimit]
    """Limits of the plan that usage does not cover."""
    since: datetime
    approximation: str
    complete_until: Completeness
