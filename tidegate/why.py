"""`tidegate why`: why was this customer denied? One sentence, what can be done, and the evidence."""

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
from rich.table import Table

from contract.credentials import PREFIXES
from contract.denials import KEY_SHOWN
from control_plane.console.figures import clock, duration
from control_plane.console.pages.verdict import verdict
from tidegate.terminal import Fitting, errors, output

TIMEOUT_S = 10.0
AROUND = timedelta(minutes=30)
"""How far from ``--at`` is looked."""
FOUND, NOTHING, NO_ANSWER = 0, 1, 2
_CLIENT = re.compile(r"[A-Za-z0-9._:@-]{1,128}")


class RefusedError(Exception):
    """The control plane refused, or did not answer."""


@dataclass(frozen=True)
class Explanation:
    """``sentence`` answers; ``remedy`` says what can be done; ``now`` what stands in the client's way at this moment.

    ``denials`` are as ``GET /v1/denials`` has them, the one that is explained in front; ``regions``: why not all.
    """

    asked: str
    kind: str
    sentence: str
    remedy: str | None
    now: str | None
    denials: list[dict[str, Any]]
    regions: dict[str, str | None]


def moment(text: str, now: datetime) -> datetime:
    """A time as a person gives it: RFC 3339, or ``10:42`` for the last time that it was so in UTC.

    Raises ``ValueError``.
    """
    if re.fullmatch(r"\d{1,2}:\d\d(:\d\d)?", text):
        parts = [int(part) for part in text.split(":")]
        at = now.replace(hour=parts[0], minute=parts[1], second=parts[2] if len(parts) == 3 else 0, microsecond=0)
        return at if at <= now else at - timedelta(days=1)
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def run_why(url: str, token: str, asked: str, at: datetime | None, *, as_json: bool) -> int:
    """Ask, print, and say by the exit code whether a denial was found."""
    headers = {"Authorization": f"Bearer {token}"}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S, trust_env=False) as client:
            found = explain(client, asked, at, datetime.now(UTC))
    except (httpx.HTTPError, RefusedError) as error:
        errors().print(f"no answer from {url}: {error or type(error).__name__}", markup=False)
        return NO_ANSWER
    if as_json:
        output().out(json.dumps(asdict(found), indent=2))
    else:
        _show(found)
    return FOUND if found.denials else NOTHING


def explain(client: httpx.Client, asked: str, at: datetime | None, now: datetime) -> Explanation:
    """Find out what ``asked`` names, which denials it had, and what holds now. Raises ``RefusedError``."""
    query: dict[str, str] = {}
    if at is not None:
        query = {"from": (at - AROUND).isoformat(), "to": (at + AROUND).isoformat(), "limit": "100"}
    if asked.startswith(tuple(PREFIXES.values())):
        asked, kind = asked[:KEY_SHOWN], "key"  # a whole key was pasted: its secret goes no further
    elif _is_address(asked):
        kind = "ip"
    elif _CLIENT.fullmatch(asked) and _read(client, f"/v1/clients/{quote(asked, safe='')}") is not None:
        kind = "client"
    else:
        kind = "request_id"
    answer = _read(client, "/v1/denials", **query, **{kind: asked}) or {"items": [], "regions": {}}
    denials = answer["items"]
    if at is not None:
        denials.sort(key=lambda one: abs(datetime.fromisoformat(one["at"]) - at))
    about = asked if kind == "client" else denials[0]["client"] if denials else None
    standing = None if about is None else _standing(client, about)
    if kind == "ip":
        blocks = (_read(client, "/v1/blocks", ip=asked) or {"items": []})["items"]
        held = ", ".join(block["block"] for block in blocks)
        standing = f"{asked} is blocked ({held})." if held else f"No block holds {asked}."
    names = {"ip": "the address", "key": "the key", "client": "the client", "request_id": "the request"}
    who = f"{names[kind]} {asked}"
    return Explanation(
        asked, kind, _sentence(who, denials, at, now), denials[0]["remedy"] if denials else None, standing,
        denials, answer["regions"],
    )  # fmt: skip


def _sentence(who: str, denials: list[dict[str, Any]], at: datetime | None, now: datetime) -> str:
    if not denials:
        near = "" if at is None else f" within {duration(AROUND.total_seconds())} of {clock(at)} UTC"
        return f"No region remembers a denial of {who}{near}."
    one = denials[0]
    passed = duration(max(0.0, (now - datetime.fromisoformat(one["at"])).total_seconds()))
    whom = one["client"] or f"the address {one['ip'] or 'unknown'}"
    times = f", {one['requests']:,} times from a client library's memory" if one["requests"] > 1 else ""
    canary = " A roll-out's first nodes decided it." if one["canary"] else ""
    place = f"in {one['region']}, {passed} ago ({clock(one['at'])} UTC, revision {one['revision']})"
    return f"{whom} was denied {place}{times}: {one['reason']}{canary}"


def _standing(client: httpx.Client, name: str) -> str | None:
    limits = _read(client, f"/v1/clients/{quote(name, safe='')}/limits")
    return None if limits is None else verdict(limits, []).text


def _read(client: httpx.Client, path: str, /, **query: str) -> Any:
    """What a route answers; ``None`` where there is no such thing."""
    answer = client.get(path, params=query)
    if answer.status_code == 404:
        return None
    try:
        body = answer.json()
    except ValueError:
        raise RefusedError(f"{path} answered {answer.status_code} without JSON") from None
    if answer.is_error:
        raise RefusedError(f"{path}: {body.get('detail') or answer.status_code}")
    return body


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _show(found: Explanation) -> None:
    console = output()
    console.print(found.sentence, markup=False, style="bold", soft_wrap=True)
    if found.remedy:
        console.print(f"What can be done: {found.remedy}", markup=False, soft_wrap=True)
    if found.now:
        console.print(f"Now: {found.now}", markup=False, soft_wrap=True)
    for region, reason in found.regions.items():
        if reason is not None:
            console.print(f"{region}: {reason}", markup=False, style="yellow", soft_wrap=True)
    if not found.denials:
        return
    table = Table("When (UTC)", "Where", "Client", "Endpoint", "Limit", "Used", "Cause", "Request", box=None)
    for one in found.denials[:10]:
        table.add_row(*_row(one))
    console.print()
    console.print(Fitting(table))
    if len(found.denials) > 10:
        console.print(f"and {len(found.denials) - 10} more; --json has them all")


def _row(one: Mapping[str, Any]) -> list[str]:
    used = "" if one["used"] is None else f"{one['used']:,} of {one['limit']:,}"
    cells = (
        clock(one["at"]), f"{one['region']} {one['node']}", one["client"] or one["ip"], one["endpoint"],
        one["limit_name"], used, one["cause"], one["request_id"],
    )  # fmt: skip
    return [str(cell or "").replace("[", r"\[") for cell in cells]
