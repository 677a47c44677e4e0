"""``X-Tidegate-Reason``: why somebody changes something, for the history and the audit log."""

from typing import Annotated

from fastapi import Depends, Header

from control_plane.errors import FieldError, InvalidError

REASON = "X-Tidegate-Reason"
MAX_REASON_LENGTH = 500


async def _reason(
    reason: Annotated[str | None, Header(alias=REASON, description=f"at most {MAX_REASON_LENGTH} letters")] = None,
) -> str | None:
    if reason is None:
        return None
    # headers arrive as latin-1; people write UTF-8
    text = reason.encode("latin-1", "replace").decode("utf-8", "replace")
    if len(text) > MAX_REASON_LENGTH:
        raise InvalidError([FieldError(REASON, f"has more than {MAX_REASON_LENGTH} letters")])
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()


Reason = Annotated[str | None, Depends(_reason)]
"""What the header says, on one line; ``None`` without it."""
