"""What is done about tokens, and to jobs."""

from control_plane.console.actions.proposal import (
    OVERLAP,
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
)
from control_plane.console.api import Api

_FOR = (("10080", "7 days"), ("43200", "30 days"), ("129600", "90 days"), ("", "without an end"))


async def add(api: Api, values: Values) -> Proposal:  # noqa: ARG001  every action is asked alike
    """A new token."""
    name, role = values.get("name", ""), values.get("role", "viewer")
    if not name:
        raise WrongFieldsError(name="say whose it is")
    expires_at = expiry_of(values)
    plans, prefixes = _names(values, "plans"), _names(values, "client_prefixes")
    body = {"name": name, "role": role, "expires_at": expires_at, "plans": plans, "client_prefixes": prefixes}
    scope = f" on {', '.join(plans)}" if plans else ""
    scope += f" for clients named {', '.join(f'{prefix}*' for prefix in prefixes)}" if prefixes else ""
    return Proposal(
        "POST",
        "/v1/tokens",
        body,
        f"A token of the role {role}{scope} works {until(expires_at)}. It is shown once, on the next page.",
        [Change(f"token {name}", "not there", f"{role}{scope}")],
    )


def _names(values: Values, field: str) -> list[str]:
    return [name.strip() for name in values.get(field, "").split(",") if name.strip()]


async def revoke(api: Api, values: Values) -> Proposal:
    """End a token."""
    answer = await api.existing(f"/v1/tokens/{values.get('token_id', '')}")
    token = answer.body
    return Proposal(
        "DELETE",
        f"/v1/tokens/{token['token_id']}",
        None,
        "Whoever uses it is refused from now on; sessions of the console that it opened end.",
        [Change(f"token {token['name']}", token["role"], "revoked")],
        precondition=unchanged(answer),
    )


async def rotate(api: Api, values: Values) -> Proposal:
    """A new secret for a token."""
    return await rotation(api, f"/v1/tokens/{values.get('token_id', '')}", "token", values)


async def run_job(api: Api, values: Values) -> Proposal:
    """Run a job now."""
    job = await api.read(f"/v1/jobs/{values.get('job', '')}")
    name = job["job"]
    return Proposal("POST", f"/v1/jobs/{name}/run", None, "The leading replica runs it within a second.",
                    [Change(f"job {name}", "waits for its time", "asked to run")])  # fmt: skip


ACTIONS = {
    "add-token": Action(
        "Issue a token",
        "Issue the token",
        add,
        [
            Field("name", "Name", help="a-z, 0-9, dots and dashes"),
            Field("role", "Role", "viewer", tuple((one, one) for one in ("viewer", "operator", "admin", "gateway"))),
            Field(
                "plans", "For clients on these plans alone", required=False, help="viewer or operator; between commas"
            ),
            Field("client_prefixes", "For clients whose names begin so", required=False, help="as acme-, globex-"),
            Field("minutes", "For how long", "43200", _FOR, required=False),
        ],
        role="admin",
        back="/console/access",
    ),
    "rotate-token": Action(
        "Rotate a token",
        "Rotate the token",
        rotate,
        [OVERLAP],
        hidden=("token_id",),
        role="admin",
        back="/console/access",
    ),
    "revoke-token": Action(
        "Revoke a token",
        "Revoke the token",
        revoke,
        hidden=("token_id",),
        role="admin",
        danger=True,
        back="/console/access",
    ),
    "run-job": Action("Run a job", "Run it now", run_job, hidden=("job",)),
}
