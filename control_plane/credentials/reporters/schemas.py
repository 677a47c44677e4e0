"""The shapes of a reporter."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from control_plane.web.fields import Body, Name, View


class ReporterFields(Body):
    """What can be written of a reporter: the backends whose load it may report."""

    backends: Annotated[list[Name], Field(min_length=1, max_length=100, examples=[["users"]])]


class ReporterCreate(ReporterFields):
    """A new reporter."""

    reporter: Name


class ReporterReplace(ReporterFields):
    """A reporter as it shall be; its credential stays."""

    reporter: Name | None = None


class ReporterRotate(Body):
    """A new credential; the one before works for another ``overlap_s`` seconds."""

    overlap_s: Annotated[int, Field(ge=0, le=30 * 86_400)] = 3_600


class ReporterView(View):
    """A reporter as it is; ``prefix`` is how its credential begins."""

    reporter: str
    backends: list[str]
    prefix: str
    created_at: datetime


class ReporterCreated(View):
    """A reporter's new credential, shown this once."""

    reporter: str
    backends: list[str]
    secret: str
