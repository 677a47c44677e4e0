"""``Prefer: wait=5`` (RFC 7240): the caller would rather wait for the outcome."""

import re

MAX_WAIT_S = 30.0
_WAIT = re.compile(r"(?:^|,)\s*wait\s*=\s*\"?(\d{1,4})\"?\s*(?:[,;]|$)", re.IGNORECASE)


def wanted_wait_s(prefer: str | None) -> float | None:
    """The seconds of ``wait`` in a ``Prefer`` field, bounded; ``None`` where it is not asked for."""
    wait = _WAIT.search(prefer or "")
    return None if wait is None else min(float(wait[1]), MAX_WAIT_S)
