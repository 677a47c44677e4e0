"""How figures, times and windows read on a page."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

DASH = "\N{EN DASH}"
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_ONE: dict[float | None, str] = {1: "second", 60: "minute", 3_600: "hour", 86_400: "day"}


def number(value: float | None) -> str:
    """``12345`` as ``12,345``; a rate below 10 keeps a decimal; nothing known is a dash."""
    if value is None:
        return DASH
    if isinstance(value, float) and not value.is_integer() and abs(value) < 10:
        return f"{value:,.1f}"
    return f"{value:,.0f}"


def percent(part: float | None, whole: float | None = 1) -> str:
    """A part of a whole in percent."""
    if part is None or not whole:
        return DASH
    value = 100 * part / whole
    return f"{value:.0f}%" if value >= 10 or value == 0 else f"{value:.1f}%"


def duration(seconds: float | None) -> str:
    """``5400`` as ``1 h 30 min``: two units at most."""
    if seconds is None:
        return DASH
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds > 0 else "0 s"
    left, words = round(seconds), []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count:
            words.append(f"{count} {unit}")
        if len(words) == 2:
            break
    return " ".join(words)


def instant(value: str | datetime | None) -> datetime | None:
    """A time as the API writes it."""
    if value is None or isinstance(value, datetime):
        return value
    at = datetime.fromisoformat(value)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def in_force(items: Iterable[Mapping[str, Any]], now: datetime) -> list[Mapping[str, Any]]:
    """Those blocks or enforcement overrides that have not ended: ended ones are listed until a job deletes them."""
    return [item for item in items if (end := instant(item.get("expires_at"))) is None or end > now]


def clock(value: str | datetime | None) -> str:
    """A time in UTC to the second."""
    at = instant(value)
    return DASH if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def ago(value: str | datetime | None) -> Markup:
    """How long ago, or in what time, with the instant itself for who points at it."""
    at = instant(value)
    if at is None:
        return Markup("&ndash;")
    passed_s = (datetime.now(UTC) - at).total_seconds()
    words = "now" if abs(passed_s) < 1 else duration(abs(passed_s)).split(" ")
    text = words if isinstance(words, str) else " ".join(words[:2])
    text = text if text == "now" else f"{text} ago" if passed_s > 0 else f"in {text}"
    return Markup('<time datetime="{0}" title="{1} UTC">{2}</time>').format(at.isoformat(), clock(at), text)


def window(limit: dict[str, Any]) -> str:
    """``per hour``, ``per 10 s``, ``per calendar month``."""
    if limit.get("window"):
        return f"per calendar {limit['window']}"
    seconds = limit.get("window_s")
    return f"per {_ONE.get(seconds) or duration(seconds)}"


def pretty(value: object) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False)


FILTERS = {
    "number": number,
    "percent": percent,
    "duration": duration,
    "clock": clock,
    "ago": ago,
    "window": window,
    "pretty": pretty,
}
