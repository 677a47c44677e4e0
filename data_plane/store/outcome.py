"""What one limit answers to one check: the common tongue of the Lua scripts, the pure rules and the decision."""

import msgspec

NEVER = -1
UNKNOWN = -1
"""``remaining`` of a denial by nobody who counts: what is left is not known."""


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """One limit's verdict. Times are microseconds from the store's now; ``retry_us`` is ``NEVER`` when it can't pass.

    ``remaining`` is what is left after the decision as a whole: a denied check consumed nothing anywhere.
    """

    allowed: bool
    remaining: int
    reset_us: int
    retry_us: int
    delay_us: int
