"""The shapes of backends and endpoints."""

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from contract.decision import MAX_COST
from control_plane.routes.templates import MAX_LENGTH, template_fault
from control_plane.web.fields import Body, Name, View


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


class BackendFields(Body):
    """What can be written of a backend: nothing yet but that it exists."""


class BackendCreate(BackendFields):
    """A new backend."""

    backend: Name


class BackendReplace(BackendFields):
    """A backend as it shall be."""

    backend: Name | None = None


class BackendView(View):
    """A backend as it is."""

    backend: str


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
