"""Completion of names in the shell, asked of the control plane with what the environment and the line so far say."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tidegate.admin.shapes import ArgumentError, filled, parameters

ENOUGH = "100"
TIMEOUT_S = 2.0


class Source(NamedTuple):
    """Where names are listed, and the member that is the name."""

    path: str
    member: str


SOURCES = {
    "backend": Source("/v1/backends", "backend"),
    "block": Source("/v1/blocks", "block"),
    "client": Source("/v1/clients", "client"),
    "endpoint": Source("/v1/endpoints", "endpoint"),
    "job": Source("/v1/jobs", "job"),
    "key_id": Source("/v1/clients/{client}/keys", "key_id"),
    "limit": Source("/v1[/plans/{plan}]/limits", "name"),
    "plan": Source("/v1/plans", "plan"),
    "region": Source("/v1/regions", "region"),
    "reporter": Source("/v1/reporters", "reporter"),
    "token_id": Source("/v1/tokens", "token_id"),
}
"""By what the table of resources calls a name."""


def names_like(name: str, begun: str, typed: Mapping[str, Any]) -> list[str]:
    """Names of this kind that begin like this; none where nobody can be asked within two seconds."""
    import typer

    from tidegate.arguments import admin_token
    from tidegate.file.remote import ControlPlane, RefusedError

    source = SOURCES[name]
    above = {other: typed.get(f"name_{other}") for other in parameters(source.path)}
    params = {"limit": ENOUGH} | ({"prefix": begun} if begun else {})
    try:
        path, token = filled(source.path, above), admin_token(typed.get("token_file"))
        with ControlPlane(typed["url"], token, timeout_s=TIMEOUT_S) as control_plane:
            rows, _ = control_plane.page(path, params)
    except (RefusedError, ArgumentError, typer.BadParameter):
        return []
    names = [str(row.get(source.member, "")) for row in rows]
    return [one for one in names if one.startswith(begun)]
