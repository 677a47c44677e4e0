"""What can be wrong with bytes that are decoded, whoever sent or stored them; and a node's name in any message."""

import zlib
from typing import Annotated, Final

import msgspec

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what they should be. It follows no nesting deeper than Python's own bound
(1,000, less what is on the stack), and says so by ``RecursionError``: catch these three, always together."""

UnreadableError = msgspec.DecodeError | UnicodeDecodeError | RecursionError
"""One of them, as a type."""

NodeName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:@-]{1,128}$(?!\n)")]
"""The name of a node or an agent, unique in its region. Python's ``$`` alone would let a line's end follow."""


class InflateError(ValueError):
    """Bytes that are not deflated, or not whole."""


class InflatesTooFarError(InflateError):
    """Bytes that inflate to more than their reader takes."""


def inflated(packed: bytes, max_bytes: int) -> bytes:
    """The bytes that were deflated to ``packed``. Raises ``InflateError``; never inflates more than ``max_bytes``."""
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(packed, max_bytes)
    except zlib.error:
        raise InflateError("is not deflated") from None
    if inflater.unconsumed_tail:
        raise InflatesTooFarError(f"inflates to more than {max_bytes} bytes")
    if not inflater.eof:
        raise InflateError("ends early")
    return raw


def what_is_wrong(error: UnreadableError) -> str:
    """The reason, for whoever wrote the bytes."""
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
