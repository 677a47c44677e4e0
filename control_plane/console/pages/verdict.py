"""The answer to somebody who asks why: one sentence on the denial, one on what holds now. Pure.

The page Why? and `tidegate why` answer by it alike.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from control_plane.console.figures import clock, duration, in_force, instant
from tidegate.contract.credentials import PREFIXES
from tidegate.contract.denials import KEY_SHOWN, MAX_FOUND

NEAR = 0.9
AROUND = (timedelta(minutes=5), timedelta(minutes=30))
"""How far from the time that is asked about is looked, and how far when nothing is found there."""
_CLOCK = re.compile(r"\d{1,2}:\d\d(:\d\d)?")


class Asked(NamedTuple):
    """What somebody has to ask with; a ``name`` is a client's, else a request's."""

    kind: Literal["key", "ip", "name"]
    text: str


def recognised(text: str) -> Asked:
    """What ``text`` can be. Of a key its beginning is kept: what else was pasted of the secret goes no further."""
    if text.startswith(tuple(PREFIXES.values())):
        return Asked("key", text[:KEY_SHOWN])
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return Asked("name", text)
    return Asked("ip", text)


def moment(text: str, now: datetime) -> datetime:
    """A time as a person gives it: RFC 3339, or ``10:42`` for the last time that it was so in UTC.

    Raises ``ValueError``.
    """
    if _CLOCK.fullmatch(text):
        parts = [int(part) for part in text.split(":")]
        at = now.replace(hour=parts[0], minute=parts[1], second=parts[2] if len(parts) == 3 else 0, microsecond=0)
        return at if at <= now else at - timedelta(days=1)
    at = datetime.fromisoformat(text)
    if not 1970 <= at.year < 9999:
        raise ValueError("nothing was denied then, and there may be no half an hour around it")
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def windows_of(at: datetime | None) -> list[dict[str, str]]:
    """Queries of ``GET /v1/denials`` for what was denied about then: the next one where one finds nothing."""
    if at is None:
        return [{}]
    return [
        {"from": (at - around).isoformat(), "to": (at + around).isoformat(), "limit": str(MAX_FOUND)}
        for around in AROUND
    ]


def nearest(denials: Sequence[Mapping[str, Any]], at: datetime | None) -> list[Mapping[str, Any]]:
    """The denials, first the one to explain: the newest, or the one nearest to a time."""
    return list(denials) if at is None else sorted(denials, key=lambda one: abs(_at(one) - at))


def denied(who: str, denials: Sequence[Mapping[str, Any]], at: datetime | None, now: datetime) -> str:
    """The first of ``denials`` in a sentence, or that none is remembered."""
    if not denials:
        about = "" if at is None else f" within {duration(AROUND[-1].total_seconds())} of {clock(at)} UTC"
        return f"No region remembers a denial of {who}{about}."
    one = denials[0]
    passed = duration(max(0.0, (now - _at(one)).total_seconds()))
    whom = one["client"] or f"the address {one['ip'] or 'unknown'}"
    times = f", {one['requests']:,} times from a client library's memory" if one["requests"] > 1 else ""
    canary = " A roll-out's first nodes decided it." if one["canary"] else ""
    place = f"in {one['region']}, {passed} ago ({clock(one['at'])} UTC, revision {one['revision']})"
    return f"{whom} was denied {place}{times}: {one['reason']}{canary}"


def _at(denial: Mapping[str, Any]) -> datetime:
    return instant(denial["at"]) or datetime.min.replace(tzinfo=UTC)


class Verdict(NamedTuple):
    """The sentence, and how bad it is: ``bad`` while requests are denied, ``warn`` when soon or lately, ``good``."""

    tone: str
    text: str


def verdict_on_address(address: str, blocks: Sequence[Mapping[str, Any]], now: datetime) -> Verdict:
    """What stands in an address's way."""
    held = ", ".join(block["block"] for block in in_force(blocks, now))
    return Verdict("bad", f"{address} is blocked ({held}).") if held else Verdict("good", f"No block holds {address}.")


def verdict_on_key(prefix: str) -> Verdict:
    """What happens to a key that nobody has."""
    return Verdict("warn", f"No key begins with {prefix}: who shows one is refused, or counts as anonymous.")


def verdict(limits: Mapping[str, Any], usage: Sequence[Mapping[str, Any]]) -> Verdict:
    """What stands in this client's way now, else what did within the last day."""
    return next(_verdicts(limits, usage))


def _verdicts(limits: Mapping[str, Any], usage: Sequence[Mapping[str, Any]]) -> Iterator[Verdict]:
    """What can be said of it, the weightiest first."""
    name = limits["client"]
    if limits["status"] == "suspended":
        yield Verdict("bad", f"{name} is suspended: every request is refused with 403.")
    if limits["blocks"]:
        yield Verdict("bad", f"{name} is blocked ({', '.join(limits['blocks'])}): every request is refused with 403.")
    uses = [(limit, region, use) for limit in limits["limits"] for region, use in limit["regions"].items()]
    spent = [(limit, region, use) for limit, region, use in uses if use["remaining"] == 0 and not limit["shadow"]]
    if spent:
        limit, _, use = spent[0]
        # What a sliding window counted still weighs on it when the window ends.
        heals = "Its window ends" if limit["algorithm"] == "sliding_window" else "It is whole again"
        healing = "" if use["reset_s"] is None else f" {heals} in {duration(use['reset_s'])}."
        where = " and ".join(region for other, region, _ in spent if other is limit)
        others = sorted({other["name"] for other, _, _ in spent} - {limit["name"]})
        more = f" {' and '.join(others)} {'are' if len(others) > 1 else 'is'} spent too." if others else ""
        used = f"{use['used']:,} of {use['limit']:,} are used"
        yield Verdict("bad", f"{limit['name']} is spent in {where}: {used}.{healing}{more}")
    denied = [item for item in usage if item["limit"] and item["denied"]]
    if denied:
        worst = max(denied, key=lambda item: int(item["denied"]))
        at = f" at {worst['endpoint']}" if worst["endpoint"] else ""
        yield Verdict(
            "warn",
            f"Nothing stands in the way of {name} now. Limits denied it within the last day, "
            f"most often {worst['limit']}{at} in {worst['region']} ({worst['denied']:,} requests).",
        )
    near: dict[str, list[str]] = {}
    for limit, region, use in uses:
        if use["limit"] and use["used"] is not None and use["used"] >= NEAR * use["limit"]:
            near.setdefault(limit["name"], []).append(region)
    if near:
        places = ", ".join(f"{limit} in {' and '.join(regions)}" for limit, regions in near.items())
        yield Verdict("warn", f"{name} is allowed, and nearly out of {places}.")
    if uses and all(use["used"] is None for _, _, use in uses):
        yield Verdict("warn", f"No region could say what {name} has left: {uses[0][2]['reason']}.")
    yield Verdict("good", f"Nothing stands in the way of {name}, and no limit denied it within the last day.")
