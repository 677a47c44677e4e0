"""The entries of the file: version 1. Unknown members are refused by name."""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema

from control_plane.adaptive.schemas import PolicyFields
from control_plane.clients.schemas import Status
from control_plane.config_file.amounts import RATE_PATTERN, parse_rate
from control_plane.limits.schemas import MAX_LIMITS, MatchFields, Shares
from control_plane.regions.schemas import RegionFields
from control_plane.routes.schemas import MAX_LENGTH, PullFields, template_fault
from control_plane.web.fields import (
    AttributeName,
    AttributeValue,
    Body,
    Instant,
    Name,
    Priority,
    Text,
    whole,
)
from tidegate.contract.decision import MAX_COST
from tidegate.contract.limits import MAX_LIMIT, Algorithm, Calendar, Mode, OnStoreFailure

METHOD = re.compile(r"[A-Z]{1,16}|\*")


def _units_or_rate(value: object) -> int | str:
    if isinstance(value, str):
        if parse_rate(value).limit > MAX_LIMIT:
            raise ValueError(f"must be a rate of at most {MAX_LIMIT}")
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_LIMIT:
        return value
    raise ValueError(f"must be a number from 0 to {MAX_LIMIT}, or a rate such as 1000/h or 5M/month")


_UNITS_SCHEMA = {"type": "integer", "minimum": 0, "maximum": MAX_LIMIT}
_RATE_SCHEMA = {"type": "string", "maxLength": 64, "pattern": RATE_PATTERN, "examples": ["1000/h", "5M/month"]}
UnitsOrRate = Annotated[
    int | str,
    PlainValidator(_units_or_rate),
    WithJsonSchema({"anyOf": [_UNITS_SCHEMA, _RATE_SCHEMA]}),
]
"""A number of units, or a rate that says the window as well."""
Units = Annotated[int, Field(ge=0, le=MAX_LIMIT)]


class Entry(Body):
    """One named thing of a section; nothing at all (``us-east:``) is the same as ``{}``, a bare value its ``limit``."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if value is None:
            return {}
        kind, wanted = _BARE.get(cls.__name__, (None, ""))
        if kind is None or isinstance(value, dict | cls):
            return value
        value = whole(value)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"must be {wanted}, or a mapping with limit")  # noqa: TRY004  # what pydantic translates
        return {"limit": value}

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Nothing at all will do where no member must be there."""
        schema = super().__get_pydantic_json_schema__(core_schema, handler)
        own = handler.resolve_ref_schema(schema)
        if own.get("type") == "object" and "required" not in own:
            own["type"] = ["object", "null"]
        return schema


_BARE: dict[str, tuple[type, str]] = {
    "CapacityEntry": (str, "a rate such as 2000/s"),
    "OverrideEntry": (int, "a number of units"),
}
"""A capacity is a rate, as a number alone says no window; an override is a number: its limit has the window."""


def _or(schema: dict[str, Any], other: dict[str, Any]) -> None:
    """The schema of what may be an object, or a bare value."""
    whole = dict(schema)
    schema.clear()
    schema.update({"title": whole.pop("title"), "anyOf": [other, whole]})


class RegionEntry(RegionFields, Entry):
    """A region. Its credentials are not part of the file."""


class PolicyEntry(PolicyFields, Entry):
    """An adaptive policy."""


class CapacityEntry(Entry):
    """What a backend serves in each region: a rate alone, or with a burst."""

    model_config = ConfigDict(json_schema_extra=lambda schema: _or(schema, _RATE_SCHEMA))

    limit: UnitsOrRate
    window_s: Annotated[float, Field(gt=0)] | None = None
    burst: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None = None

    @field_validator("limit")
    @classmethod
    def _some(cls, value: int | str) -> int | str:
        if (value if isinstance(value, int) else parse_rate(value).limit) < 1:
            raise ValueError("must be at least 1")
        return value


class BackendEntry(Entry):
    """What serves endpoints."""

    capacity: CapacityEntry | None = Field(default=None, examples=["2000/s"])
    adaptive: Name | None = None
    pulls: list[PullFields] = Field(default=[], max_length=10)


def _route(value: str) -> str:
    method, space, path = value.partition(" ")
    if not space or not METHOD.fullmatch(method):
        raise ValueError('must be a method and a path, such as "GET /api/users/{id}"; * stands for every method')
    fault = template_fault(path)
    if fault is not None:
        raise ValueError(f"path: {fault}")
    return value


class EndpointEntry(Entry):
    """A route and what serves it."""

    route: Annotated[
        str, StringConstraints(min_length=3, max_length=MAX_LENGTH + 17), Field(examples=["GET /api/users/{id}"])
    ]
    backend: Name | None = None
    cost: Annotated[int, Field(ge=0, le=MAX_COST)] = 1
    exempt: bool = False

    @field_validator("route")
    @classmethod
    def _method_and_path(cls, value: str) -> str:
        return _route(value)


class LimitEntry(Entry):
    """A limit: ``limit`` is a rate, or a number beside ``window_s`` or ``window``."""

    limit: UnitsOrRate
    window_s: Annotated[float, Field(gt=0)] | None = None
    window: Calendar | None = None
    anchor: Instant | None = None
    by: Annotated[
        str, StringConstraints(min_length=1, max_length=256), Field(examples=["client", "ip", "client+endpoint"])
    ] = "client"
    algorithm: Algorithm | None = None
    burst: Units | None = None
    match: MatchFields = MatchFields()
    mode: Mode = "shared"
    shares: Shares | Literal["auto"] | None = None
    on_store_failure: OnStoreFailure | None = None
    shadow: bool = False
    priority: Priority = 0
    adaptive: Name | None = None
    headline: bool = False
    visible: bool | None = None

    @model_validator(mode="after")
    def _one_window(self) -> "LimitEntry":
        if isinstance(self.limit, str) and (self.window_s is not None or self.window is not None):
            raise ValueError("the rate says the window: leave out window_s and window")
        return self


class PlanEntry(Entry):
    """A plan: its limits in this order."""

    priority: Priority = 0
    limits: dict[Name, LimitEntry] = Field(default={}, max_length=MAX_LIMITS)


class OverrideEntry(Entry):
    """A client's own figures for one limit of its plan, for good: expiring ones are runtime state."""

    model_config = ConfigDict(json_schema_extra=lambda schema: _or(schema, _UNITS_SCHEMA))

    limit: Units
    burst: Units | None = None


class ClientEntry(Entry):
    """A client. Its keys are not part of the file."""

    plan: Name
    status: Status = "active"
    attributes: dict[AttributeName, AttributeValue] = Field(default={}, max_length=64)
    external_id: Text | None = None
    overrides: dict[Name, OverrideEntry] = Field(default={}, max_length=100)
