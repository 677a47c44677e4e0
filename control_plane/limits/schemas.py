"""The shapes of a limit and of a plan."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints
from pydantic.config import JsonDict

from control_plane.web.fields import AttributeName, AttributeValue, Body, Instant, Method, Name, Priority, View
from tidegate.contract.limits import MAX_LIMIT, Algorithm, Calendar, Mode, OnStoreFailure

SUM_TOLERANCE = 1e-6
MAX_LIMITS = 100
"""At most so many limits in a plan, and outside plans."""


def _sum_to_one(value: dict[str, float]) -> dict[str, float]:
    if abs(sum(value.values()) - 1) > SUM_TOLERANCE:
        raise ValueError(f"the shares sum to {sum(value.values()):g}, not to 1")
    return value


Shares = Annotated[
    dict[Name, Annotated[float, Field(ge=0, le=1)]],
    Field(min_length=1, max_length=1_000),
    AfterValidator(_sum_to_one),
]
"""Regions' parts of a limit: fractions that sum to 1."""


class MatchFields(Body):
    """Which requests a limit applies to; an empty member matches all."""

    endpoints: list[Name] = Field(default=[], max_length=1_000)
    methods: list[Method] = Field(default=[], max_length=32)
    attributes: dict[AttributeName, AttributeValue] = Field(default={}, max_length=32)


class LimitFields(Body):
    """What can be written of a limit: at most ``limit`` units in each window for each subject of ``scope``."""

    scope: Annotated[
        str, StringConstraints(min_length=1, max_length=256), Field(examples=["client", "ip", "client+endpoint"])
    ] = "client"
    algorithm: Algorithm | None = None
    """`sliding_window` by default, `fixed_window` where `window` is given."""
    limit: Annotated[int, Field(ge=0, le=MAX_LIMIT, examples=[1000])]
    window_s: Annotated[float, Field(gt=0, examples=[3600])] | None = None
    """Seconds; fractions down to a millisecond. Exactly one of `window_s` and `window`."""
    window: Calendar | None = None
    """A calendar window in UTC."""
    anchor: Instant | None = None
    """An instant at which a calendar window begins."""
    burst: Annotated[int, Field(ge=0, le=MAX_LIMIT)] | None = None
    """What a bucket holds; `limit` by default."""
    match: MatchFields = MatchFields()
    mode: Mode = "shared"
    on_store_failure: OnStoreFailure | None = None
    """`local` by default, `closed` for mode `strict`."""
    shadow: bool = False
    """Counted and reported, never enforced."""
    priority: Priority = 0
    adaptive: Name | None = None
    headline: bool = False
    """Shown in `X-RateLimit-*`; by default the plan's first limit is."""
    visible: bool | None = None
    """Whether end clients see it while it allows; by default unless the scope holds `global` or `backend`."""


class LimitCreate(LimitFields):
    """A new limit, or one in a plan's list."""

    name: Name


class LimitReplace(LimitFields):
    """A limit as it shall be."""

    name: Name | None = None


class MatchView(View):
    """Which requests a limit applies to."""

    endpoints: list[str]
    methods: list[str]
    attributes: dict[str, str]


class LimitView(View):
    """A limit as it is, every default filled in; it can be sent back as it is."""

    name: str
    scope: str
    algorithm: Algorithm
    limit: int
    window_s: float | None
    window: Calendar | None
    anchor: datetime | None
    burst: int | None
    match: MatchView
    mode: Mode
    on_store_failure: OnStoreFailure
    shadow: bool
    priority: int
    adaptive: str | None
    headline: bool
    visible: bool | None


class LimitRecord(LimitView):
    """A limit as the audit log keeps it: with its shares as written, fractions by region or `auto`."""

    shares: dict[str, float] | Literal["auto"] | None


class PlanFields(Body):
    """What can be written of a plan."""

    priority: Priority = 0
    """A higher one matters more when load must be shed."""
    limits: list[LimitCreate] = Field(default=[], max_length=MAX_LIMITS)
    """In this order; the first is the headline unless one is marked."""


_HOURLY: JsonDict = {
    "name": "hourly",
    "scope": "client",
    "algorithm": "sliding_window",
    "limit": 1000,
    "window_s": 3600,
}


class PlanCreate(PlanFields):
    """A new plan."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"plan": "free", "priority": 10, "limits": [_HOURLY]}]})

    plan: Name


class PlanReplace(PlanFields):
    """A plan as it shall be, with all its limits."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"priority": 10, "limits": [_HOURLY]}]})

    plan: Name | None = None


class PlanView(View):
    """A plan as it is."""

    plan: str
    priority: int
    limits: list[LimitView]


class PlanRecord(View):
    """A plan as the audit log keeps it: with its limits' shares."""

    plan: str
    priority: int
    limits: list[LimitRecord]
