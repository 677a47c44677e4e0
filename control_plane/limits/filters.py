"""Which limits a list shows, and in which order."""

from typing import Annotated

from fastapi import Depends
from sqlalchemy import ColumnElement

from control_plane.limits.models import LimitRow
from control_plane.storage import equal
from control_plane.web.fields import Name
from control_plane.web.pages import Page, sorted_by
from tidegate.contract.limits import Algorithm, Mode


def _wanted(
    algorithm: Algorithm | None = None,
    mode: Mode | None = None,
    shadow: bool | None = None,
    adaptive: Name | None = None,
) -> list[ColumnElement[bool]]:
    return equal(
        (LimitRow.algorithm, algorithm),
        (LimitRow.mode, mode),
        (LimitRow.shadow, shadow),
        (LimitRow.adaptive, adaptive),
    )


LimitFilter = Annotated[list[ColumnElement[bool]], Depends(_wanted)]
LimitPages = Annotated[Page, sorted_by("name", "limit", "priority", "algorithm")]
