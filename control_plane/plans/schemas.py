"""The shapes of a plan."""

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from control_plane.limits.schemas import MAX_LIMITS, LimitCreate, LimitRecord, LimitView
from control_plane.web.fields import Body, Name, Priority, View


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
