"""What is done to a plan's limit: other figures, tried in shadow first, by the roll-out policy, or at once."""

from collections.abc import Mapping
from typing import Any

from control_plane.console.actions.proposal import (
    Action,
    Change,
    Field,
    Proposal,
    Values,
    WrongFieldsError,
    unchanged,
    whole,
)
from control_plane.console.api import Api
from control_plane.console.figures import DASH

BACK = "/console/plan/{plan}"
TRIED = "-try"
"""What the name of a limit that only counts ends with."""
WAYS = (
    ("shadow", "in shadow first: count what it would deny, deny nobody"),
    ("policy", "by the roll-out policy: one node, its region, then all"),
    ("now", "to every node at once"),
)
_SHOWN = ("limit", "burst", "window_s", "window")


async def change(api: Api, values: Values) -> Proposal:
    """Other figures for a limit."""
    plan, name = values.get("plan", ""), values.get("name", "")
    path = f"/v1/plans/{plan}/limits/{name}"
    answer = await api.existing(path)
    now: dict[str, Any] = answer.body
    wanted = {**now, "limit": whole(values, "limit")}
    if now["burst"] is not None or values.get("burst"):
        wanted["burst"] = whole(values, "burst", required=False) or None
    if now["window_s"] is not None and values.get("window_s"):
        wanted["window_s"] = _seconds(values["window_s"])
    changes = [
        Change(member.replace("_", " "), _shown(now[member]), _shown(wanted[member]))
        for member in _SHOWN
        if now[member] != wanted[member]
    ]
    if not changes:
        raise WrongFieldsError(limit="nothing is different from what is")
    way = values.get("way") or "policy"
    if way == "shadow":
        there = await api.ask(f"{path}{TRIED}")
        before = _figure(there.body) if there.ok else "not there"
        tried = {**wanted, "name": f"{name}{TRIED}", "shadow": True, "headline": False}
        return Proposal(
            "PUT",
            f"{path}{TRIED}",
            tried,
            f"A limit {name}{TRIED} counts beside {name} and denies nobody. The plan's usage says what it would deny.",
            [Change(f"{name}{TRIED}", before, f"{wanted['limit']:,} in shadow")],
            precondition=unchanged(there),
            immediate=True,
        )
    only_limit = all(now[member] == wanted[member] for member in ("burst", "window_s"))
    warning = "" if only_limit else "Overrides end as far as they do not fit the changed limit."
    return Proposal(
        "PUT",
        path,
        wanted,
        f"The limit {name} of the plan {plan} changes for all of its clients but those with an override.",
        changes,
        precondition=unchanged(answer),
        immediate=way == "now",
        warning=warning,
    )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise WrongFieldsError(window_s="must be a number of seconds") from None
    if not value > 0:
        raise WrongFieldsError(window_s="must be more than 0")
    return value


def _shown(value: object) -> str:
    return f"{value:,.15g}" if isinstance(value, int | float) else str(value or DASH)


def _figure(limit: Mapping[str, Any]) -> str:
    return f"{limit['limit']:,}" + (" in shadow" if limit["shadow"] else "")


async def remove(api: Api, values: Values) -> Proposal:
    """Take a limit out of a plan."""
    plan, name = values.get("plan", ""), values.get("name", "")
    path = f"/v1/plans/{plan}/limits/{name}"
    answer = await api.existing(path)
    return Proposal(
        "DELETE", path, None, f"Clients of the plan {plan} are no longer held by {name}. Their overrides of it end.",
        [Change(name, _figure(answer.body), "gone")], precondition=unchanged(answer), immediate=False,
    )  # fmt: skip


ACTIONS = {
    "limit": Action(
        "Change a limit",
        "Change the limit",
        change,
        [
            Field("limit", "Limit", help="units in each window"),
            Field("burst", "Burst", required=False, help="of a bucket; the limit by default"),
            Field("window_s", "Window (seconds)", required=False, help="of a calendar window: leave it empty"),
            Field("way", "How", "shadow", WAYS),
        ],
        hidden=("plan", "name"),
        back=BACK,
    ),
    "remove-limit": Action(
        "Remove a limit", "Remove the limit", remove, hidden=("plan", "name"), danger=True, back=BACK
    ),
}
