"""Entity tags: a strong hash of what a resource shows, so that nobody overwrites what they have not seen."""

import hashlib
from typing import NamedTuple

from pydantic import BaseModel

from control_plane.errors import PreconditionFailedError


def etag_of(view: BaseModel) -> str:
    """The strong entity tag of a representation, without the members that its class calls ``UNTAGGED``."""
    text = view.model_dump_json(exclude=getattr(view, "UNTAGGED", None))
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


class Preconditions(NamedTuple):
    """``If-Match`` and ``If-None-Match`` as sent (RFC 9110, section 13)."""

    if_match: str | None = None
    if_none_match: str | None = None

    def check(self, current: BaseModel | None) -> None:
        """Raise :class:`PreconditionFailedError` unless they hold for ``current`` (``None``: does not exist)."""
        if self.if_match is not None and not _matches(self.if_match, current):
            raise PreconditionFailedError("If-Match does not name the current version: read it again.")
        if self.if_none_match is not None and _matches(self.if_none_match, current):
            raise PreconditionFailedError("If-None-Match: the resource exists.")


def _matches(field: str, current: BaseModel | None) -> bool:
    if current is None:
        return False
    return field.strip() == "*" or etag_of(current) in (tag.strip() for tag in field.split(","))
