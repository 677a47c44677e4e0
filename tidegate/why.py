"""`tidegate why`: why was this customer denied? One sentence, what can be done, and the evidence."""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
from rich.table import Table
from rich.text import Text

from control_plane.console.figures import clock
from control_plane.console.pages.verdict import denied, nearest, recognised, verdict, verdict_on_address, windows_of
from tidegate.terminal import Fitting, errors, output, printable

TIMEOUT_S = 10.0
HANDED_ON_S = 1.5
"""A node hands its denials on once a second: one of a moment ago is found within this time."""
ASK_AGAIN_S = 0.5
FOUND, NOTHING, NO_ANSWER = 0, 1, 2
LAST_DAY = {"group_by": "limit,endpoint,region", "limit": "1000"}
_CLIENT = re.compile(r"[A-Za-z0-9._:@-]{1,128}")


class RefusedError(Exception):
    """The control plane answered with something else than what was asked for; the text says why."""


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
    denials: list[Mapping[str, Any]]
    regions: dict[str, str | None]


def run_why(url: str, token: str, asked: str, at: datetime | None, *, as_json: bool) -> int:
    """Ask, print, and say by the exit code whether a denial was found.

    Without ``at``, the denial may be one of a moment ago: it asks again until a node has had the time to hand that on.
    """
    headers = {"Authorization": f"Bearer {token}"}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S, trust_env=False) as client:
            found = explain(client, asked, at, datetime.now(UTC))
            until = time.monotonic() + HANDED_ON_S
            while not found.denials and at is None and time.monotonic() < until:
                time.sleep(ASK_AGAIN_S)
                found = explain(client, asked, at, datetime.now(UTC))
    except RefusedError as error:
        errors().print(f"{url}: {error}", markup=False)
        return NO_ANSWER
    except httpx.HTTPError as error:
        errors().print(f"no answer from {url}: {error or type(error).__name__}", markup=False)
        return NO_ANSWER
    if as_json:
        output().out(json.dumps(asdict(found), indent=2))
    else:
        _show(found)
    return FOUND if found.denials else NOTHING


def explain(client: httpx.Client, asked: str, at: datetime | None, now: datetime) -> Explanation:
    """Find out what ``asked`` names, which denials it had, and what holds now. Raises ``RefusedError``."""
    found = recognised(asked)
    asked, kind = found.text, str(found.kind)
    if kind == "name":
        is_client = _CLIENT.fullmatch(asked) and _read(client, f"/v1/clients/{quote(asked, safe='')}") is not None
        kind = "client" if is_client else "request_id"
    answer: dict[str, Any] = {"items": [], "regions": {}}
    for query in windows_of(at):
        answer = _read(client, "/v1/denials", **query, **{kind: asked}) or answer
        if answer["items"]:
            break
    denials = nearest(answer["items"], at)
    about = asked if kind == "client" else denials[0]["client"] if denials else None
    state = None if about is None else _client_state(client, about, now)
    if kind == "ip":
        blocks = (_read(client, "/v1/blocks", ip=asked) or {"items": []})["items"]
        state = verdict_on_address(asked, blocks, now).text
    if kind == "request_id" and not denials:
        state = f"There is no client named {asked}."
    names = {"ip": "the address", "key": "the key", "client": "the client", "request_id": "the request"}
    who = f"{names[kind]} {asked}"
    return Explanation(
        asked, kind, denied(who, denials, at, now), denials[0]["remedy"] if denials else None, state,
        denials, answer["regions"],
    )  # fmt: skip


def _client_state(client: httpx.Client, name: str, now: datetime) -> str | None:
    path = f"/v1/clients/{quote(name, safe='')}"
    limits = _read(client, f"{path}/limits")
    if limits is None:
        return None
    since = (now - timedelta(days=1)).isoformat()
    query, usage = {**LAST_DAY, "from": since}, []
    while part := _read(client, f"{path}/usage", **query):
        usage += part["items"]
        if part["next_cursor"] is None:
            break
        query["cursor"] = part["next_cursor"]
    return verdict(limits, usage).text


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
        what = "the token was refused" if answer.status_code == 401 else f"{path} was refused"
        raise RefusedError(f"{what} ({answer.status_code}): {body.get('detail') or answer.reason_phrase}")
    return body


def _show(found: Explanation) -> None:
    console = output()
    console.print(printable(found.sentence), markup=False, style="bold", soft_wrap=True)
    if found.remedy:
        console.print(printable(f"What can be done: {found.remedy}"), markup=False, soft_wrap=True)
    if found.now:
        console.print(printable(f"Now: {found.now}"), markup=False, soft_wrap=True)
    for region, reason in found.regions.items():
        if reason is not None:
            console.print(printable(f"{region}: {reason}"), markup=False, style="yellow", soft_wrap=True)
    if not found.denials:
        return
    table = Table("When (UTC)", "Where", "Client", "Endpoint", "Limit", "Used", "Cause", "Request", box=None)
    for one in found.denials[:10]:
        table.add_row(*_row(one))
    console.print()
    console.print(Fitting(table))
    if len(found.denials) > 10:
        console.print(f"and {len(found.denials) - 10} more; --json has them all")


def _row(one: Mapping[str, Any]) -> list[Text]:
    used = "" if one["used"] is None else f"{one['used']:,} of {one['limit']:,}"
    cells = (
        clock(one["at"]), f"{one['region']} {one['node']}", one["client"] or one["ip"], one["endpoint"],
        one["limit_name"], used, one["cause"], one["request_id"],
    )  # fmt: skip
    return [Text(printable(str(cell or ""))) for cell in cells]
