"""What is done for one client: plan, status, overrides, counts, keys."""

from control_plane.console.actions.proposal import (
    MINUTES,
    OVERLAP,
    UNTIL_ENDED,
    Action,
    Change,
    Field,
    Proposal,
    Values,
    WrongFieldsError,
    expiry_of,
    rotation,
    unchanged,
    until,
    whole,
)
from control_plane.console.api import Api
from control_plane.console.figures import DASH

BACK = "/console/client/{client}"


async def change(api: Api, values: Values) -> Proposal:
    """Another plan or status."""
    name = values.get("client", "")
    answer = await api.existing(f"/v1/clients/{name}")
    now = answer.body
    plan, status = values.get("plan") or now["plan"], values.get("status") or now["status"]
    body = {
        "plan": plan,
        "status": status,
        "attributes": now["attributes"],
        "external_id": values.get("external_id") or None,
    }
    after = {**now, **body}
    changes = [
        Change(member.replace("_", " "), str(now[member] or DASH), str(after[member] or DASH))
        for member in ("plan", "status", "external_id")
        if now[member] != after[member]
    ]
    if not changes:
        raise WrongFieldsError(plan="nothing is different from what is")
    warning = "Overrides end as far as they do not fit the other plan." if plan != now["plan"] else ""
    return Proposal(
        "PUT",
        f"/v1/clients/{name}",
        body,
        f"Keys and counts of {name} stay, and overrides as far as they fit its plan.",
        changes,
        precondition=unchanged(answer),
        warning=warning,
    )


async def add(api: Api, values: Values) -> Proposal:
    """A new client."""
    name = values.get("client", "")
    if not name:
        raise WrongFieldsError(client="say what it is called")
    if await api.find(f"/v1/plans/{values.get('plan', '')}") is None:
        raise WrongFieldsError(plan="there is no such plan")
    body = {"client": name, "plan": values["plan"]}
    return Proposal(
        "POST", "/v1/clients", body, f"{name} may call once it has a key.", [Change(name, "not there", "active")]
    )


async def override(api: Api, values: Values) -> Proposal:
    """The client's own figures for a limit."""
    name, limit = values.get("client", ""), values.get("name", "")
    path = f"/v1/clients/{name}/overrides/{limit}"
    client = (await api.existing(f"/v1/clients/{name}")).body
    there = await api.ask(path)
    of_plan = await api.find(f"/v1/plans/{client['plan']}/limits/{limit}")
    if of_plan is None:
        raise WrongFieldsError(limit=f"the plan {client['plan']} has no limit {limit}")
    figure, burst = whole(values, "limit"), whole(values, "burst", required=False)
    expires_at = expiry_of(values)
    body = {"limit": figure, "burst": burst, "expires_at": expires_at}
    before = there.body["limit"] if there.ok else of_plan["limit"]
    return Proposal(
        "PUT",
        path,
        body,
        f"{name} has its own {limit} {until(expires_at)}.",
        [Change(f"{limit} of {name}", f"{before:,}", f"{figure:,}")],
        precondition=unchanged(there),
    )


async def end_override(api: Api, values: Values) -> Proposal:
    """Back to the plan's figures."""
    name, limit = values.get("client", ""), values.get("name", "")
    path = f"/v1/clients/{name}/overrides/{limit}"
    answer = await api.existing(path)
    change = Change(f"{limit} of {name}", f"{answer.body['limit']:,}", "as the plan says")
    return Proposal("DELETE", path, None, "The plan's figures hold again.", [change], precondition=unchanged(answer))


async def reset(api: Api, values: Values) -> Proposal:
    """Start the counts afresh."""
    name = values.get("client", "")
    answer = await api.existing(f"/v1/clients/{name}")
    return Proposal(
        "POST",
        f"/v1/clients/{name}/reset",
        {},
        f"Every counter of {name} begins at nothing in every region. It cannot be undone.",
        [Change(f"counts of {name}", "as they are", "0 used")],
        precondition=unchanged(answer),
    )


async def add_key(api: Api, values: Values) -> Proposal:
    """A new key."""
    name = values.get("client", "")
    await api.existing(f"/v1/clients/{name}")
    body = {"name": values.get("key_name") or None}
    return Proposal(
        "POST", f"/v1/clients/{name}/keys", body, "The secret is shown once, on the next page.",
        [Change(f"keys of {name}", "as they are", "one more")],
    )  # fmt: skip


async def rotate_key(api: Api, values: Values) -> Proposal:
    """A new key in place of one."""
    path = f"/v1/clients/{values.get('client', '')}/keys/{values.get('key_id', '')}"
    return await rotation(api, path, "key", values)


async def revoke_key(api: Api, values: Values) -> Proposal:
    """End a key."""
    path = f"/v1/clients/{values.get('client', '')}/keys/{values.get('key_id', '')}"
    answer = await api.existing(path)
    return Proposal(
        "DELETE", path, None, "Requests with this key are refused, or count as anonymous. It cannot be undone.",
        [Change(f"key {answer.body['key_id']} ({answer.body['name'] or 'no name'})", "works", "revoked")],
        precondition=unchanged(answer),
    )  # fmt: skip


_LIMIT = Field("limit", "Limit", help="units in each window")
ACTIONS = {
    "client": Action(
        "Change a client",
        "Save",
        change,
        [
            Field("plan", "Plan", required=False),
            Field("status", "Status", options=(("active", "active"), ("suspended", "suspended")), required=False),
            Field("external_id", "External id", required=False, help="its name in another system, such as billing"),
        ],
        hidden=("client",),
        back=BACK,
    ),
    "add-client": Action(
        "Add a client", "Add the client", add, [Field("client", "Name"), Field("plan", "Plan")], back=BACK
    ),
    "override": Action(
        "Give a client its own figures",
        "Save the override",
        override,
        [
            _LIMIT,
            Field("burst", "Burst", required=False, help="of a bucket; the limit by default"),
            Field("minutes", "For how long", "1440", (*MINUTES, UNTIL_ENDED), required=False),
        ],
        hidden=("client", "name"),
        back=BACK,
    ),
    "end-override": Action(
        "End an override", "Go back to the plan", end_override, hidden=("client", "name"), danger=True, back=BACK
    ),
    "reset": Action("Reset a client's counts", "Reset the counts", reset, hidden=("client",), danger=True, back=BACK),
    "add-key": Action(
        "Add a key",
        "Make the key",
        add_key,
        [Field("key_name", "Name", "from the console", required=False)],
        hidden=("client",),
        back=BACK,
    ),
    "rotate-key": Action(
        "Rotate a key",
        "Rotate the key",
        rotate_key,
        [OVERLAP],
        hidden=("client", "key_id"),
        back=BACK,
    ),
    "revoke-key": Action(
        "Revoke a key", "Revoke the key", revoke_key, hidden=("client", "key_id"), danger=True, back=BACK
    ),
}
