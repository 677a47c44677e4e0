"""What the table of resources is made of: fields, verbs, resources, and paths with parts that may be left out."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

Kind = Literal["text", "int", "float", "bool", "list", "pairs", "ahead", "ago"]
"""``list``: between commas. ``pairs``: ``name=value``, repeatable. ``ahead``, ``ago``: an instant, or a duration."""
Action = Literal["list", "show", "create", "set", "replace", "post", "delete"]

_DURATION = re.compile(r"^(\d{1,5})([smhdw])$")
_DATE = re.compile(r"\d{4}-")
"""How an instant begins; the control plane reads the rest."""
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_PARAMETER = re.compile(r"\{(\w+)\}")
_OPTIONAL = re.compile(r"\[([^\[\]]*)\]")


class ArgumentError(ValueError):
    """An argument that cannot be sent."""


class Field(NamedTuple):
    """An option of a command, and the member of the body (``a.b``: b of a) or of the query that it becomes."""

    member: str
    help: str
    kind: Kind = "text"
    choices: tuple[str, ...] = ()
    instead_of: tuple[str, ...] = ()
    """Members that mean the same otherwise, and end when this one is set."""
    option: str = ""
    """Its name, where that is not the member's last part."""
    required: bool = False
    in_query: bool = False
    """Whether it goes into the query of a write, too."""
    brings: tuple[tuple[str, str], ...] = ()
    """Members of the query that come with it, unless they are given."""

    @property
    def flag(self) -> str:
        """The option as it is typed."""
        return "--" + (self.option or self.member.rpartition(".")[2].replace("_", "-"))


class Verb(NamedTuple):
    """One command: what it does to which path."""

    name: str
    help: str
    action: Action
    path: str
    fields: tuple[Field, ...] = ()
    columns: tuple[str, ...] = ()
    """Of its table, where they are not the resource's."""
    items: str = "items"
    """The member of the answer that holds a list's rows."""
    per: str = ""
    """A member of each row, objects by name: people see a line for each of them."""
    whole: bool = False
    """A list's answer holds every row, and is no page."""

    @property
    def writes(self) -> bool:
        """Whether it changes something."""
        return self.action not in ("list", "show")


@dataclass(frozen=True)
class Resource:
    """A group of commands."""

    name: str
    help: str
    columns: tuple[str, ...]
    verbs: tuple[Verb, ...]


def parameters(path: str) -> dict[str, bool]:
    """The names in a path, and whether each may be left out, because it stands in brackets."""

    def optional(at: int) -> bool:
        return path.count("[", 0, at) > path.count("]", 0, at)

    return {match[1]: optional(match.start()) for match in _PARAMETER.finditer(path)}


def filled(path: str, given: Mapping[str, str | None]) -> str:
    """The path with names in their places; a part in brackets goes when one of its names is not given.

    Raises ``ArgumentError`` for a name that no path can hold, or that has no place in this one.
    """
    names = {name: value for name, value in given.items() if value is not None}
    for name, value in names.items():
        if value in ("", ".", ".."):  # would lead to another resource
            raise ArgumentError(f"{name}: must not be {value!r}")
        if "/" in value:
            raise ArgumentError(f"{name}: must not hold a /")

    def kept(match: re.Match[str]) -> str:
        return match[1] if parameters(match[1]).keys() <= names.keys() else ""

    while "[" in path:  # from the innermost
        path = _OPTIONAL.sub(kept, path)
    if unplaced := names.keys() - parameters(path).keys():
        raise ArgumentError(f"--{min(unplaced)} needs another name with it: see --help")
    if missing := parameters(path).keys() - names.keys():
        raise ArgumentError(f"{min(missing)}: is needed")
    return _PARAMETER.sub(lambda match: quote(names[match[1]], safe=""), path)


def value_of(field: Field, given: Any, now: datetime) -> Any:
    """What is sent for what was typed; durations count from ``now``. Raises ``ArgumentError``."""
    if field.kind == "float" and not isfinite(given):
        raise ArgumentError(f"{field.flag}: must be a number")
    if field.kind == "list":
        return [item.strip() for item in given.split(",") if item.strip()]
    if field.kind == "pairs":
        if wrong := [item for item in given if "=" not in item]:
            raise ArgumentError(f"{field.flag}: {wrong[0]!r} is not NAME=VALUE")
        pairs = [(name.strip(), value or None) for name, _, value in (item.partition("=") for item in given)]
        if twice := [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]:
            raise ArgumentError(f"{field.flag}: {twice[0]} is given twice")
        return dict(pairs)
    if field.kind in ("ahead", "ago") and (match := _DURATION.match(given)):
        span = timedelta(**{_UNITS[match[2]]: int(match[1])})
        return (now + span if field.kind == "ahead" else now - span).astimezone(UTC).isoformat()
    if field.kind in ("ahead", "ago") and not _DATE.match(given):
        raise ArgumentError(f"{field.flag}: must be an instant such as 2030-01-31T12:00:00Z, or a duration such as 12h")
    return given


def changed(body: dict[str, Any], field: Field, value: Any) -> dict[str, Any]:
    """``body`` with the field set; pairs are laid over those that are there, and go where they have no value."""
    outer, _, inner = field.member.rpartition(".")
    if outer:
        nested = field._replace(member=inner)
        return body | {outer: changed(dict(body.get(outer) or {}), nested, value)}
    if field.kind == "pairs":
        laid_over = (body.get(field.member) or {}) | value
        value = {name: one for name, one in laid_over.items() if one is not None}
    return body | dict.fromkeys(field.instead_of) | {field.member: value}
