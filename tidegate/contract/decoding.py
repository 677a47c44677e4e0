"""What can be wrong with bytes that are decoded, whoever sent or stored them; and a node's name in any message."""

from typing import Annotated, Final

import msgspec

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what they should be. It follows no nesting deeper than Python's own bound
(1,000, less what is on the stack), and says so by ``RecursionError``: catch these three, always together."""

UnreadableError = msgspec.DecodeError | UnicodeDecodeError | RecursionError
"""One of them, as a type."""

NodeName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:@-]{1,128}$(?!\n)")]
"""The name of a node or an agent, unique in its region. Python's ``$`` alone would let a line's end follow."""


def what_is_wrong(error: UnreadableError) -> str:
    """The reason, for whoever wrote the bytes."""
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
