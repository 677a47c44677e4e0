"""The shapes of backends and endpoints."""

import re
from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, StringConstraints

from control_plane.web.fields import Body, Expiry, Name, Text, View
from tidegate.contract.config import PARAMETER
from tidegate.contract.decision import MAX_COST
from tidegate.contract.limits import MAX_LIMIT
from tidegate.contract.load import MAX_QUERY_LENGTH, Signal

MAX_LENGTH = 512
# RFC 3986 pchar without percent-encoding: nodes match decoded paths, and encoded slashes match nothing
LITERAL = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+")


def template_fault(template: str) -> str | None:
    """What is wrong with a path template, or ``None``."""
    if not template.startswith("/") or len(template) > MAX_LENGTH:
        return f"must begin with / and have at most {MAX_LENGTH} characters"
    if template == "/":
        return None
    segments = template[1:].split("/")
    parameters = [segment for segment in segments if PARAMETER.fullmatch(segment)]
    if len(set(parameters)) != len(parameters):
        return "names a parameter twice"
    return next((fault for fault in map(_segment_fault, segments) if fault is not None), None)


def _segment_fault(segment: str) -> str | None:
    if segment in {"", ".", ".."}:
        return "must hold no empty segment (//, or / at the end) and no dot segment"
    if PARAMETER.fullmatch(segment) or LITERAL.fullmatch(segment):
        return None
    if "{" in segment or "}" in segment:
        return f"{segment!r}: a parameter is a whole segment, such as {{id}}"
    return f"{segment!r} holds characters that a path segment cannot, or percent-encoding"


def _template(value: str) -> str:
    fault = template_fault(value)
    if fault is not None:
        raise ValueError(fault)
    return value


PathTemplate = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_LENGTH),
    AfterValidator(_template),
    Field(examples=["/api/users/{id}"]),
]


class CapacityFields(Body):
    """What a backend serves in each region: at most ``limit`` units in each window."""

    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, examples=[2000])]
    window_s: Annotated[float, Field(gt=0, examples=[1])] = 1.0
    """Seconds; fractions down to a millisecond."""
    burst: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None = None
    """What may come at once; `limit` by default."""


class PullFields(Body):
    """A signal that a node asks a Prometheus-compatible server for."""

    server: Name
    """A name in the nodes' own settings (`TIDEGATE_LOAD_SERVERS`), never an address."""
    signal: Signal
    query: Annotated[str, StringConstraints(min_length=1, max_length=MAX_QUERY_LENGTH, pattern=r"^[^\x00-\x1f\x7f]*$")]
    """An instant query; of several samples the median counts."""


class BackendFields(Body):
    """What can be written of a backend."""

    capacity: CapacityFields | None = None
    adaptive: Name | None = None
    """The adaptive policy that protects it."""
    pulls: list[PullFields] = Field(default=[], max_length=10)


class BackendCreate(BackendFields):
    """A new backend."""

    backend: Name


class BackendReplace(BackendFields):
    """A backend as it shall be."""

    backend: Name | None = None


class CapacityView(View):
    """What a backend serves in each region."""

    limit: int
    window_s: float
    burst: int | None


class PullView(View):
    """A signal that a node asks a server for."""

    server: str
    signal: Signal
    query: str


class ManualFactorReplace(Body):
    """An operator's own factor, in every region, until it expires."""

    factor: Annotated[float, Field(ge=0.0, le=1.0, examples=[0.5])]
    expires_at: Expiry
    reason: Text | None = None


class ManualFactorView(View):
    """An operator's own factor; it counts until ``expires_at``."""

    factor: float
    expires_at: datetime
    reason: str | None


class BackendView(View):
    """A backend as it is."""

    backend: str
    capacity: CapacityView | None
    adaptive: str | None
    pulls: list[PullView]


class ClassLoadView(View):
    """A class of clients, by the priority of their plans: the share that is admitted, and what it asks for."""

    priority: int
    factor: float
    offered_per_s: float


class RegionFactorView(View):
    """A backend's factor in one region, and why."""

    region: str
    factor: float
    reason: str
    since: datetime
    """Since when the factor has this value."""
    signal: str | None
    """The signal that weighs most, and the smoothed load by it."""
    load: float | None
    reporters: int
    classes: list[ClassLoadView]
    policy: str
    decided_by: str
    reported_at: datetime
    """When the region last said so."""


class BackendDetail(BackendView):
    """A backend, its manual factor and its factor in each region. The ETag is that of the backend alone."""

    UNTAGGED: ClassVar[set[str]] = {"manual", "factors"}
    manual: ManualFactorView | None
    factors: list[RegionFactorView]


class EndpointFields(Body):
    """What can be written of an endpoint."""

    method: Annotated[str, StringConstraints(pattern=r"^([A-Z]{1,16}|\*)$"), Field(examples=["GET"])]
    """`*` stands for every method."""
    path: PathTemplate
    backend: Name | None = None
    cost: Annotated[int, Field(ge=0, le=MAX_COST)] = 1
    """Multiplies the cost of each request."""
    exempt: bool = False
    """Requests of this endpoint are always allowed and never counted."""


class EndpointCreate(EndpointFields):
    """A new endpoint."""

    endpoint: Name


class EndpointReplace(EndpointFields):
    """An endpoint as it shall be."""

    endpoint: Name | None = None


class EndpointView(View):
    """An endpoint as it is."""

    endpoint: str
    method: str
    path: str
    backend: str | None
    cost: int
    exempt: bool
