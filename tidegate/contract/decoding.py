"""What can be wrong with bytes that are decoded, whoever sent or stored them."""

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what they should be. It follows no nesting deeper than Python's own bound
(1,000, less what is on the stack), and says so by ``RecursionError``: catch these three, always together."""

UnreadableError = msgspec.DecodeError | UnicodeDecodeError | RecursionError
"""One of them, as a type."""


def what_is_wrong(error: UnreadableError) -> str:
    """The reason, for whoever wrote the bytes."""
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
