"""What the commands of the table do, and with which exit code they end."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from tidegate.admin.shapes import ArgumentError, Field, Resource, Verb, changed, filled, value_of
from tidegate.admin.show import outcome_line, show_difference, show_list, show_one, spread
from tidegate.file.remote import Answer, ControlPlane, RefusedError
from tidegate.terminal import errors, output

DONE, FAILED, NOT_EVERYWHERE, MISSING = 0, 1, 3, 4
"""2 is a wrong argument, as everywhere. ``NOT_EVERYWHERE``: written, and not enforced by every node in time."""
ROWS_FOR_PEOPLE = 100
MAX_PAGE = 1_000
ACCEPTED, CONFLICT = 202, 412
CONFLICTS = {
    "create": "refused (412): it exists already; `set` changes it",
    "set": "refused (412): somebody changed it at the same moment; look at it and try again",
}
CREATED = frozenset({"create", "post"})


class Call(NamedTuple):
    """One command as it was typed."""

    url: str
    token: str
    resource: Resource
    verb: Verb
    names: Mapping[str, str | None]
    """What stands in the path."""
    fields: Mapping[Field, Any]
    """Only those that were given."""
    as_json: bool = False
    rows: int | None = None
    wait_s: int = 0
    immediate: bool = False
    reason: str | None = None
    unset: tuple[str, ...] = ()


def run(call: Call) -> int:
    """Send it and print the result. Raises ``ArgumentError`` for what cannot be sent."""
    path = filled(call.verb.path, call.names)
    for field in call.fields:
        for other in call.fields:
            if other.member in field.instead_of:
                raise ArgumentError(f"{field.flag}: is given in place of {other.flag}, not with it")
        if field.member.partition(".")[0] in call.unset:
            raise ArgumentError(f"{field.flag}: is given and unset")
    members = {field.member.partition(".")[0] for field in call.verb.fields}
    for name in call.unset:
        if name not in members:
            raise ArgumentError(f"--unset: {name!r} is none of {', '.join(sorted(members))}")
    values = {field: value_of(field, given, datetime.now(UTC)) for field, given in call.fields.items()}
    try:
        with ControlPlane(call.url, call.token) as control_plane:
            if call.verb.action == "list":
                return _list(control_plane, path, values, call)
            if call.verb.action == "show":
                return _show(control_plane, path, call)
            return _write(control_plane, path, values, call)
    except RefusedError as error:
        _show_refusal(error, call.verb)
        return MISSING if error.status == 404 else FAILED


def _list(control_plane: ControlPlane, path: str, values: Mapping[Field, Any], call: Call) -> int:
    wanted = call.rows if call.rows is not None else None if call.as_json else ROWS_FOR_PEOPLE
    params = {field.member: _as_parameter(value) for field, value in values.items()}
    items: list[dict[str, Any]] = []
    while True:
        left = MAX_PAGE if not wanted else min(MAX_PAGE, wanted - len(items))
        page = {} if call.verb.whole else {"limit": str(left)}
        rows, beside = control_plane.page(path, params | page, call.verb.items)
        items += rows
        cursor = beside.pop("next_cursor", None)
        if cursor is None or (wanted and len(items) >= wanted):
            break
        params["cursor"] = cursor
    if call.as_json:
        _print_json({call.verb.items: items, **beside, "next_cursor": cursor})
    else:
        shown = spread(items, call.verb.per) if call.verb.per else items
        show_list(output(), shown, call.verb.columns or call.resource.columns, beside)
    if cursor is not None:
        errors().print(f"there are more than these {len(items):,}: --rows 0 lists all", markup=False)
    return DONE


def _show(control_plane: ControlPlane, path: str, call: Call) -> int:
    content = control_plane.call("GET", path).content
    if call.as_json:
        _print_json(content)
    else:
        show_one(output(), content)
    return DONE


def _write(control_plane: ControlPlane, path: str, values: Mapping[Field, Any], call: Call) -> int:
    headers = {} if call.reason is None else {"X-Tidegate-Reason": call.reason}
    if prefer := [f"wait={call.wait_s}"] * (call.wait_s > 0) + ["rollout=immediate"] * call.immediate:
        headers["Prefer"] = ", ".join(prefer)
    method, body, before = "PUT", {}, None
    match call.verb.action:
        case "set":
            found = control_plane.call("GET", path)
            before = found.content
            headers["If-Match"] = found.headers.get("etag", "*")
            body = {name: before.get(name) for name in _written(call.verb, before)}
        case "create":
            headers["If-None-Match"] = "*"
        case "post":
            method = "POST"
        case "delete":
            method = "DELETE"
    for field, value in values.items():
        if not field.in_query:
            body = changed(body, field, value)
    body = {name: value for name, value in body.items() if name not in call.unset}
    params = {member: given for field, value in values.items() if value for member, given in field.brings}
    params |= {field.member: _as_parameter(value) for field, value in values.items() if field.in_query}
    sent = None if method == "DELETE" else body
    answer = control_plane.call(method, path, params=params, body=sent, headers=headers)
    return _print_outcome(answer, before, call)


def _written(verb: Verb, before: Mapping[str, Any]) -> set[str]:
    """The members of a resource that a replacement must name, or they would go back to their defaults."""
    members = {field.member.partition(".")[0] for field in verb.fields}
    return members | ({"limits"} & before.keys())


def _print_outcome(answer: Answer, before: dict[str, Any] | None, call: Call) -> int:
    revision, rollout, enforced_ms = (
        answer.headers.get(f"x-tidegate-{name}") for name in ("revision", "rollout", "enforced-ms")
    )
    to_wait_for = (revision is not None and rollout is None) or answer.status == ACCEPTED
    late = call.wait_s > 0 and to_wait_for and answer.headers.get("preference-applied") != "wait"
    if call.as_json:
        _print_json({
            "result": answer.content or None,
            "revision": None if revision is None else int(revision),
            "enforced_ms": None if enforced_ms is None else float(enforced_ms),
            "rollout": None if rollout is None else int(rollout),
        })  # fmt: skip
    else:
        console = output()
        if before is not None:
            show_difference(console, before, answer.content)
        elif answer.content and call.verb.action in CREATED:
            show_one(console, answer.content)
        if revision is not None:
            console.print(outcome_line(revision, rollout, enforced_ms, call.wait_s), markup=False)
        elif late:
            console.print(f"asked for, and not over within {call.wait_s} s", markup=False)
    return NOT_EVERYWHERE if late else DONE


def _as_parameter(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _print_json(content: Any) -> None:
    output().out(json.dumps(content, indent=2))


def _show_refusal(error: RefusedError, verb: Verb) -> None:
    console = errors()
    options = {field.member: field.flag for field in verb.fields}
    if error.status == CONFLICT:
        console.print(CONFLICTS.get(verb.action, f"{error}"), style="red", markup=False)
    elif not error.errors:
        console.print(f"{error}", style="red", markup=False)
    for field, message in error.errors:
        # of a list or a map its part is named
        whole = (flag for member, flag in options.items() if f"{field}.".startswith((f"{member}.", f"{member}[")))
        option = "".join(f" ({flag})" for flag in whole)
        console.print(f"refused ({error.status}): {field}{option}: {message}", style="red", markup=False)
