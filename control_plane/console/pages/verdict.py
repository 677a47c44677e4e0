"""One sentence on a client that says it was denied, from its limits and what was denied lately. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from control_plane.console.figures import duration

NEAR = 0.9


class Verdict(NamedTuple):
    """The sentence, and how bad it is: ``bad`` while requests are denied, ``warn`` when soon or lately, ``good``."""

    tone: str
    text: str


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
        limit, region, use = spent[0]
        healing = "" if use["reset_s"] is None else f" It is whole again in {duration(use['reset_s'])}."
        more = f" {len(spent) - 1} more are spent." if len(spent) > 1 else ""
        used = f"{use['used']:,} of {use['limit']:,} are used"
        yield Verdict("bad", f"{limit['name']} is spent in {region}: {used}.{healing}{more}")
    denied = [item for item in usage if item["limit"] and item["denied"]]
    if denied:
        worst = max(denied, key=lambda item: int(item["denied"]))
        at = f" at {worst['endpoint']}" if worst["endpoint"] else ""
        count = sum(item["denied"] for item in denied)
        yield Verdict(
            "warn",
            f"Nothing stands in the way of {name} now. Limits denied {count:,} requests within the last day, "
            f"most of them {worst['limit']}{at} in {worst['region']} ({worst['denied']:,}).",
        )
    near = [
        f"{limit['name']} in {region}"
        for limit, region, use in uses
        if use["limit"] and use["used"] is not None and use["used"] >= NEAR * use["limit"]
    ]
    if near:
        yield Verdict("warn", f"{name} is allowed, and nearly out of {', '.join(near)}.")
    if uses and all(use["used"] is None for _, _, use in uses):
        yield Verdict("warn", f"No region could say what {name} has left: {uses[0][2]['reason']}.")
    yield Verdict("good", f"Nothing stands in the way of {name}, and no limit denied it within the last day.")
