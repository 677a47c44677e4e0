"""``Prefer`` (RFC 7240): ``wait=5``, the caller would rather wait for the outcome; ``rollout=immediate``."""

import re

MAX_WAIT_S = 30.0
_WAIT = re.compile(r"(?:^|,)\s*wait\s*=\s*\"?(\d{1,4})\"?\s*(?:[,;]|$)", re.IGNORECASE)

_IMMEDIATE = re.compile(r"(?:^|,)\s*rollout\s*=\s*\"?immediate\"?\s*(?:[,;]|$)", re.IGNORECASE)


def wanted_wait_s(prefer: str | None) -> float | None:
    """The seconds of ``wait`` in a ``Prefer`` field, bounded; ``None`` where it is not asked for."""
    wait = _WAIT.search(prefer or "")
    return None if wait is None else min(float(wait[1]), MAX_WAIT_S)


def wants_immediate(prefer: str | None) -> bool:
    """Whether ``rollout=immediate`` is in a ``Prefer`` field: the emergency switch of one write."""
    return _IMMEDIATE.search(prefer or "") is not None
