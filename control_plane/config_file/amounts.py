"""``1000/h`` and ``5M/month``: how a file writes a limit and its window in one word. Pure; no I/O."""

import re
from typing import NamedTuple

UNITS_S: dict[str, int] = {"s": 1, "min": 60, "h": 3_600, "day": 86_400, "week": 604_800}
_UNIT_NAMES = {
    "s": "s", "sec": "s", "second": "s", "min": "min", "minute": "min", "h": "h", "hour": "h",
    "d": "day", "day": "day", "w": "week", "week": "week",
}  # fmt: skip
_SUFFIXES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}
RATE_PATTERN = r"^[0-9]{1,13}(\.[0-9]{1,9})?[kKMG]? ?/ ?[0-9]{0,9}[a-z]{1,6}$"
_RATE = re.compile(
    r"(?P<digits>[0-9]{1,13})(?:\.(?P<fraction>[0-9]{1,9}))?(?P<suffix>[kKMG]?)"
    r" ?/ ?(?P<count>[0-9]{0,9})(?P<unit>[a-z]{1,6})"
)


class Rate(NamedTuple):
    """So many units in each window of ``window_s`` seconds, or (``window_s`` ``None``) in each calendar month."""

    limit: int
    window_s: int | None


def parse_rate(text: str) -> Rate:
    """``1000/h``, ``100/15min``, ``5M/month``. Raises ``ValueError`` that says what is allowed."""
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise ValueError("must be a number, or a rate such as 10/s, 60/min, 1000/h, 100/day, 2/week or 5M/month")
    limit, unit, count = _units(match), match["unit"], int(match["count"] or 1)
    if unit == "month":
        if match["count"]:
            raise ValueError("a calendar window is one month: write 5M/month")
        return Rate(limit, None)
    if unit not in _UNIT_NAMES:
        raise ValueError(f"{unit!r} is not one of s, min, h, day, week, month")
    if count == 0:
        raise ValueError("a window of 0 is none")
    return Rate(limit, count * UNITS_S[_UNIT_NAMES[unit]])


def _units(match: re.Match[str]) -> int:
    fraction = match["fraction"] or ""
    scale = _SUFFIXES[match["suffix"]]
    parts: int = 10 ** len(fraction)
    units, rest = divmod(int(match["digits"] + fraction) * scale, parts)
    if rest:
        raise ValueError("must be a whole number of units")
    return units


def format_amount(units: int) -> str:
    """The short way to write whole units: ``5M``, ``20k``, ``1500``."""
    for suffix, least in (("G", 10**9), ("M", 10**6), ("k", 10**4)):
        scale = _SUFFIXES[suffix]
        if units >= least and units % scale == 0:
            return f"{units // scale}{suffix}"
    return str(units)


def format_rate(limit: int, window_s: float | None) -> str | None:
    """The short way to write a rate; ``None`` for a window of a fraction of a second. None: a month."""
    if window_s is None:
        return f"{format_amount(limit)}/month"
    if window_s != int(window_s) or window_s < 1:
        return None
    seconds = int(window_s)
    for unit, length_s in reversed(UNITS_S.items()):
        count, rest = divmod(seconds, length_s)
        if rest == 0 and (count == 1 or unit != "week"):  # two weeks are 14day
            return f"{format_amount(limit)}/{count if count > 1 else ''}{unit}"
    return None
