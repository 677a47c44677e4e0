"""What can be done from a page, always in two steps: what will change is shown, then it is confirmed."""

import secrets
from collections.abc import Mapping
from typing import cast

from starlette.responses import Response

from control_plane.access.principals import AdminRole, require, strongest
from control_plane.console.actions import clients, emergency, plans, tokens
from control_plane.console.actions.proposal import Action, Proposal, Values, WrongFieldsError
from control_plane.console.api import Answer, segment
from control_plane.console.visit import Visit
from control_plane.errors import ForbiddenError

ACTIONS: Mapping[str, Action] = {**emergency.ACTIONS, **clients.ACTIONS, **plans.ACTIONS, **tokens.ACTIONS}
WAIT_S = 10
MAX_VALUE = 500


async def show(visit: Visit) -> Response:
    """The first step: the form, and what will change by it."""
    action = _action(visit)
    if isinstance(action, Response):
        return action
    values = _values(action, visit.request.query_params)
    if action.fields and not visit.asked("look"):
        return _page(visit, action, values, {})
    empty = {field.name: "is needed" for field in action.fields if field.required and not values[field.name]}
    if empty:
        return _page(visit, action, values, empty, status=422)
    return await _proposed(visit, action, values)


async def do(visit: Visit) -> Response:
    """The second step: do it, and say when every node enforced it."""
    action = _action(visit)
    if isinstance(action, Response):
        return action
    values = _values(action, visit.form) | {"expires_at": visit.form.get("expires_at", "")}
    try:
        proposal = await action.propose(visit.api, values)
    except WrongFieldsError as error:
        return _page(visit, action, values, error.errors, status=422)
    headers = _headers(visit, values, proposal)
    answer = await visit.api.send(proposal.method, proposal.path, proposal.body, headers, proposal.query)
    if not answer.ok:
        return await _refused(visit, action, values, answer)
    return visit.page(
        "done.html",
        action=action,
        proposal=proposal,
        answer=answer,
        enforced_ms=answer.headers.get("x-tidegate-enforced-ms"),
        revision=answer.headers.get("x-tidegate-revision"),
        rollout=answer.headers.get("x-tidegate-rollout"),
        secret=(answer.body or {}).get("secret"),
        back=_back(action, values),
        path=_back(action, values),
        wait_s=WAIT_S,
    )


def _action(visit: Visit) -> Action | Response:
    """The action that was asked for, or why the visitor does not get it."""
    action = ACTIONS.get(visit.request.path_params["action"])
    if action is None:
        return visit.page("problem.html", 404, title="Not found", detail="There is no such action.")
    try:
        # a role for some clients only is enough to be shown the form: the API refuses what it does not cover
        principal = visit.visitor.principal
        role = strongest((principal.role, *(grant.role for grant in principal.grants)))
        require(principal._replace(role=cast("AdminRole", role)), action.role)
    except ForbiddenError as error:
        return visit.page("problem.html", 403, title="Not for your role", detail=str(error))
    given = visit.form if visit.request.method == "POST" else visit.request.query_params
    if any("/" in given.get(name, "") for name in action.hidden if name != "target"):
        return visit.page("problem.html", 404, title="Not found", detail="No name has a slash in it.")
    return action


def _values(action: Action, given: Mapping[str, str]) -> dict[str, str]:
    values = {field.name: given.get(field.name, field.default) for field in action.fields}
    values |= {name: given.get(name, "") for name in (*action.hidden, "reason")}
    return {name: value.strip()[:MAX_VALUE] for name, value in values.items()}


def _headers(visit: Visit, values: Values, proposal: Proposal) -> dict[str, str]:
    prefer = f"wait={WAIT_S}" + (", rollout=immediate" if proposal.immediate else "")
    headers = {"Prefer": prefer, "X-Tidegate-Reason": values["reason"] or "from the console"}
    headers |= {name: visit.form[name] for name in ("If-Match", "If-None-Match") if visit.form.get(name)}
    if proposal.method == "POST" and visit.form.get("once"):
        headers["Idempotency-Key"] = visit.form["once"]
    return headers


async def _proposed(
    visit: Visit, action: Action, values: dict[str, str], *, status: int = 200, trouble: str = ""
) -> Response:
    try:
        proposal = await action.propose(visit.api, values)
    except WrongFieldsError as error:
        return _page(visit, action, values, error.errors, status=422, trouble=trouble)
    return _page(visit, action, values, {}, proposal, status=status, trouble=trouble)


async def _refused(visit: Visit, action: Action, values: dict[str, str], answer: Answer) -> Response:
    if answer.status == 412:
        words = "Somebody changed it since you looked, so nothing was done. This is what would change now."
        return await _proposed(visit, action, {**values, "expires_at": ""}, status=412, trouble=words)
    names = {field.name for field in action.fields}
    errors = {name: words for name, words in answer.errors.items() if name in names}
    others = "; ".join(f"{name} {words}" for name, words in answer.errors.items() if name not in names)
    trouble = "" if errors and not others else others or answer.detail
    return _page(visit, action, values, errors, status=answer.status, trouble=trouble)


def _page(
    visit: Visit,
    action: Action,
    values: Values,
    errors: Mapping[str, str],
    proposal: Proposal | None = None,
    *,
    status: int = 200,
    trouble: str = "",
) -> Response:
    return visit.page(
        "do.html",
        status,
        name=visit.request.path_params["action"],
        action=action,
        values=values,
        errors=errors,
        proposal=proposal,
        trouble=trouble,
        back=_back(action, values),
        path=_back(action, values),
        once=secrets.token_hex(16),
    )


def _back(action: Action, values: Values) -> str:
    return action.back.format_map({name: segment(value) for name, value in values.items()})
