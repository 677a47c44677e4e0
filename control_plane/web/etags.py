"""Entity tags: a strong hash of what a resource shows, so that nobody overwrites what they have not seen."""

import hashlib
import json

from fastapi.responses import Response
from pydantic import BaseModel

from control_plane.errors import PreconditionFailedError


def etag_of(view: BaseModel) -> str:
    """The strong entity tag of a representation, without the members that its class calls ``UNTAGGED``."""
    # sorted: Postgres gives the members of an object back in an order of its own
    text = json.dumps(view.model_dump(mode="json", exclude=getattr(view, "UNTAGGED", None)), sort_keys=True)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def json_with_etag(view: BaseModel) -> Response:
    """The JSON answer to a read of one resource, with its ETag."""
    return Response(view.model_dump_json(), 200, {"ETag": etag_of(view)}, media_type="application/json")


class Preconditions:
    """``If-Match`` and ``If-None-Match`` as sent (RFC 9110, section 13), and whether anything was held against them."""

    def __init__(self, if_match: str | None = None, if_none_match: str | None = None) -> None:
        self._if_match = if_match
        self._if_none_match = if_none_match
        self._checked = False

    @property
    def creates(self) -> bool:
        """Whether only something new may be written."""
        return (self._if_none_match or "").strip() == "*"

    def check(self, current: BaseModel | None) -> None:
        """Raise :class:`PreconditionFailedError` unless they hold for ``current`` (``None``: does not exist)."""
        self.check_tag(None if current is None else etag_of(current))

    def check_tag(self, current: str | None) -> None:
        """The same for a tag."""
        self._checked = True
        if self._if_match is not None and not _matches(self._if_match, current):
            raise PreconditionFailedError("If-Match does not name the current version: read it again.")
        if self._if_none_match is not None and _matches(self._if_none_match, current):
            raise PreconditionFailedError("If-None-Match: the resource exists.")

    def require_checked(self) -> None:
        """Raise :class:`PreconditionFailedError` where one was sent and nothing was held against it."""
        if not self._checked and (self._if_match, self._if_none_match) != (None, None):
            raise PreconditionFailedError("If-Match and If-None-Match mean nothing here.")


def _matches(field: str, current: str | None) -> bool:
    if current is None:
        return False
    return field.strip() == "*" or current in (tag.strip() for tag in field.split(","))


def revision_tag(revision: int) -> str:
    """The entity tag of the configuration as a whole: its revision."""
    return f'"{revision}"'
