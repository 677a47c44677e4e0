"""What is done at three in the morning: shadow, block, take load by hand, roll back."""

from typing import Any, get_args

from control_plane.console.actions.proposal import (
    MINUTES,
    UNTIL_ENDED,
    Action,
    Change,
    Field,
    Proposal,
    Values,
    WrongFieldsError,
    expiry_of,
    fraction,
    unchanged,
    until,
    whole,
)
from control_plane.console.api import Answer, Api
from control_plane.enforcement.schemas import EnforcementView
from control_plane.web.etags import etag_of, revision_tag
from tidegate.contract.blocks import EVERY_LIMIT, ReasonClass

CLASSES: tuple[str, ...] = get_args(ReasonClass)
MAX_SHOWN = 50


async def _override_of(api: Api, target: str) -> Answer:
    """The enforcement override of a target; that of all limits has no address of its own to be read at."""
    if target != EVERY_LIMIT:
        return await api.ask(_enforcement_path(target))
    items = (await api.read("/v1/enforcement", prefix=EVERY_LIMIT))["items"]
    if not items:
        return Answer(404, {}, None)
    return Answer(200, {"etag": etag_of(EnforcementView.model_validate(items[0]))}, items[0])


def _mode(override: Answer) -> str:
    return str(override.body["mode"]) if override.ok else "as each limit says"


def _enforcement_path(target: str) -> str:
    path = "" if target == EVERY_LIMIT else "/" + target.removeprefix("_/")
    return f"/v1/enforcement{path}"


def _limits(target: str) -> str:
    return "all limits" if target == EVERY_LIMIT else f"the limit {target}"


async def shadow(api: Api, values: Values) -> Proposal:
    """Let limits count and stop nobody."""
    target = values.get("target") or EVERY_LIMIT
    expires_at = expiry_of(values)
    body: dict[str, Any] = {"mode": "shadow", "expires_at": expires_at, "reason": values.get("reason") or None}
    what, there = _limits(target), await _override_of(api, target)
    return Proposal(
        "PUT",
        _enforcement_path(target),
        body,
        f"{what[0].upper()}{what[1:]} will count and report, and deny nobody, {until(expires_at)}.",
        [Change(what, _mode(there), "shadow")],
        precondition=unchanged(there),
        warning="Blocks and adaptive shedding stay in force.",
    )


async def enforce(api: Api, values: Values) -> Proposal:
    """End an enforcement override."""
    target = values.get("target") or EVERY_LIMIT
    what, there = _limits(target), await _override_of(api, target)
    change = Change(what, _mode(there), "as each limit says")
    return Proposal(
        "DELETE",
        _enforcement_path(target),
        None,
        f"The enforcement override of {what} ends: they deny again.",
        [change],
        precondition=unchanged(there),
    )


async def block(api: Api, values: Values) -> Proposal:
    """Refuse somebody everywhere."""
    kind, of = values.get("kind", "client"), values.get("of", "")
    if kind not in {"client", "key_id", "ip", "endpoint"}:
        raise WrongFieldsError(kind="choose what to block")
    if not of:
        raise WrongFieldsError(of="say whom")
    expires_at = expiry_of(values)
    body = {
        kind: of,
        "reason_class": values.get("reason_class") or CLASSES[0],
        "reason": values.get("reason") or None,
        "expires_at": expires_at,
    }
    there = (await api.ask("/v1/blocks", **{kind: of}, limit=10)).body or {}
    before = ", ".join(item["block"] for item in there.get("items", ())) or "may pass"
    name = {"key_id": "key", "ip": "address"}.get(kind, kind)
    return Proposal(
        "POST",
        "/v1/blocks",
        body,
        f"Every request of {name} {of} is refused with 403 in every region {until(expires_at)}.",
        [Change(f"{name} {of}", before, "blocked")],
    )


async def unblock(api: Api, values: Values) -> Proposal:
    """Lift a block."""
    answer = await api.existing(f"/v1/blocks/{values.get('block', '')}")
    of = next(f"{kind} {answer.body[kind]}" for kind in ("client", "key_id", "ip", "endpoint") if answer.body[kind])
    return Proposal(
        "DELETE",
        f"/v1/blocks/{answer.body['block']}",
        None,
        f"Requests of {of} pass again where limits allow them.",
        [Change(of, "blocked", "limits decide")],
        precondition=unchanged(answer),
    )


async def factor(api: Api, values: Values) -> Proposal:
    """Decide how much of a backend's load is admitted."""
    name = values.get("backend", "")
    manual = await api.ask(f"/v1/backends/{name}/factor")
    backend = await api.read(f"/v1/backends/{name}")
    share, expires_at = fraction(values, "factor"), expiry_of(values, required=True)
    now = ", ".join(f"{one['region']} {one['factor']:.2f}" for one in backend["factors"]) or "1.00"
    before = f"{manual.body['factor']:.2f} by hand" if manual.ok else f"by load ({now})"
    return Proposal(
        "PUT",
        f"/v1/backends/{name}/factor",
        {"factor": share, "expires_at": expires_at, "reason": values.get("reason") or None},
        f"Every region admits {share:.0%} of what limits allow to the backend {name}, {until(expires_at)}.",
        [Change(f"factor of {name}", before, f"{share:.2f} by hand")],
        precondition=unchanged(manual),
    )


async def unfactor(api: Api, values: Values) -> Proposal:
    """Let load decide again."""
    name = values.get("backend", "")
    answer = await api.existing(f"/v1/backends/{name}/factor")
    change = Change(f"factor of {name}", f"{answer.body['factor']:.2f} by hand", "by load")
    return Proposal(
        "DELETE", f"/v1/backends/{name}/factor", None, "Load decides again in every region.", [change],
        precondition=unchanged(answer),
    )  # fmt: skip


async def rollback(api: Api, values: Values) -> Proposal:
    """Make the configuration what it was at a revision."""
    number = values.get("number", "")
    if not number.isdecimal():
        raise WrongFieldsError(number="must be the number of a revision")
    path, body = f"/v1/revisions/{number}/rollback", {"reason": values.get("reason") or None}
    query = f"allow_deletes={whole(values, 'allow_deletes', required=False) or 0}"
    tried = await api.send("POST", path, body, query=f"{query}&dry_run=true")
    if not tried.ok:
        field = "allow_deletes" if "allow_deletes" in tried.errors else "number"
        raise WrongFieldsError(**{field: tried.errors.get(field, tried.detail)})
    found = tried.body["changes"]
    changes = [
        Change(f"{one['section']}: {one['name']}", _brief(one["before"]), _brief(one["after"]))
        for one in found[:MAX_SHOWN]
    ]
    left = len(found) - len(changes) + tried.body["omitted"]
    deleted = sum(one["action"] == "delete" for one in found)
    return Proposal(
        "POST",
        path,
        body,
        f"A new revision makes {len(found) + tried.body['omitted']} things what they were at revision {number}.",
        changes,
        precondition={"If-Match": revision_tag(tried.body["revision"])},
        query=query,
        warning=(f"{left} more are not shown. " if left else "")
        + (f"{deleted} are deleted; clients lose their keys for good. " if deleted else "")
        + "Keys, tokens, resets, blocks and enforcement overrides stay as they are.",
    )


def _brief(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "not there"
    return (
        ", ".join(f"{name} {value}" for name, value in entry.items() if not isinstance(value, list | dict)) or "there"
    )


async def release(api: Api, values: Values) -> Proposal:
    """Let every node have a roll-out's revision."""
    return await _step_in(api, values, "release", "Every node gets it now, whatever nodes report.", "all nodes")


async def take_back(api: Api, values: Values) -> Proposal:
    """Stop a roll-out."""
    return await _step_in(
        api, values, "rollback", "Nodes that have it get, by a new revision, what was before.", "undone"
    )


async def _step_in(api: Api, values: Values, word: str, summary: str, after: str) -> Proposal:
    # without If-Match: a roll-out goes on while somebody reads, and stepping in means the same at every step
    answer = await api.existing(f"/v1/rollouts/{values.get('revision', '')}")
    rollout = answer.body
    where = rollout["region"] + (f"/{rollout['node']}" if rollout["node"] else "")
    return Proposal(
        "POST",
        f"/v1/rollouts/{rollout['revision']}/{word}",
        {"reason": values.get("reason") or None},
        summary,
        [Change(f"roll-out of revision {rollout['revision']}", f"{rollout['state']} {where}", after)],
    )


ACTIONS = {
    "shadow": Action(
        "Put limits into shadow",
        "Put into shadow",
        shadow,
        [Field("minutes", "For how long", "60", (*MINUTES, UNTIL_ENDED), required=False)],
        hidden=("target",),
        danger=True,
        about="Every limit goes on counting, and denies nobody.",
    ),
    "enforce": Action("End the enforcement override", "Enforce again", enforce, hidden=("target",)),
    "block": Action(
        "Block",
        "Block",
        block,
        [
            Field("kind", "What", "client", (("client", "client"), ("key_id", "key"), ("ip", "address or network"),
                                             ("endpoint", "endpoint"))),
            Field("of", "Which", help="its name, key id, address or CIDR block"),
            Field("reason_class", "Class of reason", CLASSES[0], tuple((one, one) for one in CLASSES)),
            Field("minutes", "For how long", "60", (*MINUTES, UNTIL_ENDED), required=False),
        ],
        danger=True,
    ),
    "unblock": Action("Lift a block", "Lift the block", unblock, hidden=("block",)),
    "factor": Action(
        "Admit load by hand",
        "Set the factor",
        factor,
        [
            Field("factor", "Factor", "0.5", help="1 lifts all cuts, 0.5 admits half, 0 nothing"),
            Field("minutes", "For how long", "60", MINUTES),
        ],
        hidden=("backend",),
        danger=True,
        back="/console/backends",
    ),
    "unfactor": Action(
        "End the manual factor", "Let load decide", unfactor, hidden=("backend",), back="/console/backends"
    ),
    "rollback": Action(
        "Roll back",
        "Roll back",
        rollback,
        [
            Field("number", "To revision", help="the configuration as it was right after this revision"),
            Field("allow_deletes", "Deletions allowed", required=False, help="how many, if more than 10"),
        ],
        danger=True,
        back="/console/changes",
    ),
    "release": Action(
        "Release a roll-out", "Release to all nodes", release, hidden=("revision",), back="/console/changes"
    ),
    "take-back": Action(
        "Take a roll-out back", "Take it back", take_back, hidden=("revision",), danger=True, back="/console/changes"
    ),
}  # fmt: skip
