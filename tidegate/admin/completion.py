"""Completes names in the shell. It asks the control plane that the environment and the typed options name."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tidegate.admin.resources import PREFIX, RESOURCES
from tidegate.admin.shapes import ArgumentError, filled, parameters

ENOUGH = "100"
TIMEOUT_S = 2.0


class Source(NamedTuple):
    """Where names are listed, the member that is the name, and what the list takes."""

    path: str
    member: str
    parameters: tuple[str, ...] = ("limit",)


def _sources() -> dict[str, Source]:
    """Where each name of a command's path is listed: of every resource whose list takes a prefix, and of four more."""
    found = {
        "endpoint": Source("/v1/endpoints", "endpoint"),
        "job": Source("/v1/jobs", "job", ()),
        "key_id": Source("/v1/clients/{client}/keys", "key_id"),
        "token_id": Source("/v1/tokens", "token_id"),
    }
    for resource in RESOURCES:
        verbs = {verb.name: verb for verb in resource.verbs}
        if "show" in verbs and PREFIX in verbs["list"].fields:
            listed = verbs["list"].path
            (name,) = parameters(verbs["show"].path.removeprefix(listed))
            found[name] = Source(listed, resource.columns[0], ("limit", "prefix"))
    return found


SOURCES = _sources()


def names_like(name: str, begun: str, typed: Mapping[str, Any]) -> list[str]:
    """Names of this kind that begin with ``begun``; none if the control plane does not answer within two seconds."""
    import typer

    from tidegate.arguments import admin_token
    from tidegate.file.remote import ControlPlane, RefusedError

    source = SOURCES[name]
    above = {other: typed.get(f"name_{other}") for other in parameters(source.path)}
    wanted = {"limit": ENOUGH} | ({"prefix": begun} if begun else {})
    params = {name: value for name, value in wanted.items() if name in source.parameters}
    try:
        path, token = filled(source.path, above), admin_token(typed.get("token_file"))
        with ControlPlane(typed["url"], token, timeout_s=TIMEOUT_S) as control_plane:
            rows, _ = control_plane.page(path, params)
    except (RefusedError, ArgumentError, typer.BadParameter):
        return []
    names = (str(row.get(source.member, "")) for row in rows)
    return [name for name in names if name.startswith(begun)]
