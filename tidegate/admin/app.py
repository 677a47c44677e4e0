"""The commands of the table as the shell sees them, with help and completion."""

import inspect
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer
import typer.main
from typer.core import TyperGroup

from tidegate.admin.completion import SOURCES, names_like
from tidegate.admin.resources import RESOURCES
from tidegate.admin.shapes import ArgumentError, Field, Resource, Verb, parameters
from tidegate.arguments import LOCAL_CONTROL_PLANE, ControlPlaneUrl, TokenFile, admin_token, header_text, utf8_text
from tidegate.file.app import AsJson

PANEL = "Daily work"
WAIT_S = 10
MAX_WAIT_S = 30
EXIT_CODES = (
    "Exits with 0 when done, 1 when refused, 2 on wrong arguments, 3 when not every node had it in time,"
    " 4 when there is no such thing."
)
TYPES: dict[str, Any] = {"int": int, "float": float, "bool": bool, "pairs": list[str]}
Rows = Annotated[
    int | None,
    typer.Option(min=0, show_default=False, help="At most so many, 0 for all; by default 100, with --json all."),
]
WaitS = Annotated[int, typer.Option(min=0, max=MAX_WAIT_S, help="Seconds to wait until every node enforces it.")]
Immediate = Annotated[bool, typer.Option("--immediate", help="To every node at once, without a roll-out.")]
Reason = Annotated[str | None, typer.Option(callback=header_text, help="Why, for the history and the audit log.")]


def _utf8_texts(values: list[str] | None) -> list[str] | None:
    for value in values or ():
        utf8_text(value)
    return values


Unset = Annotated[
    list[str] | None,
    typer.Option(metavar="MEMBER", callback=_utf8_texts, help="Take a member away, back to its default; repeatable."),
]


def register(app: typer.Typer) -> None:
    """Add a group for each resource to the application."""
    for resource in RESOURCES:
        group = typer.Typer(cls=_group(resource), help=resource.help, no_args_is_help=True)
        app.add_typer(group, name=resource.name, rich_help_panel=PANEL)


def _group(resource: Resource) -> type[TyperGroup]:
    """A group that makes its commands when they are asked for: all of them at once take 70 ms of every start."""
    verbs = {verb.name: verb for verb in resource.verbs}

    class Group(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - as click calls it
            return list(verbs)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
            if cmd_name not in verbs:
                return None
            verb, alone = verbs[cmd_name], typer.Typer(add_completion=False)
            alone.command(verb.name, help=verb.help, epilog=EXIT_CODES)(_command(resource, verb))
            return typer.main.get_command(alone)

    return Group


def _command(resource: Resource, verb: Verb) -> Callable[..., None]:
    """A function whose signature is what typer makes the command of."""
    names, fields = parameters(verb.path), {f"field_{at}": field for at, field in enumerate(verb.fields)}

    def command(**given: Any) -> None:
        from tidegate.admin.commands import Call, run

        call = Call(
            given.pop("url"),
            admin_token(given.pop("token_file")),
            resource,
            verb,
            {name: given.pop(f"name_{name}") for name in names},
            {field: value for at, field in fields.items() if (value := given.pop(at)) not in (None, [])},
            unset=tuple(given.pop("unset", None) or ()),
            **given,
        )
        try:
            sys.exit(run(call))
        except ArgumentError as error:
            raise typer.BadParameter(str(error)) from None

    signature = [_name(name, optional=optional) for name, optional in names.items()]
    signature += [_option(at, field) for at, field in fields.items()]
    signature += [_parameter("url", ControlPlaneUrl, LOCAL_CONTROL_PLANE), _parameter("token_file", TokenFile, None)]
    if verb.action == "list" and not verb.whole:
        signature.append(_parameter("rows", Rows, None))
    if verb.writes:
        signature += [_parameter("wait_s", WaitS, WAIT_S), _parameter("reason", Reason, None)]
        signature.append(_parameter("immediate", Immediate, False))
    if verb.action == "set":
        signature.append(_parameter("unset", Unset, None))
    signature.append(_parameter("as_json", AsJson, False))
    command.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
    return command


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _name(name: str, *, optional: bool) -> inspect.Parameter:
    """A name of the path: an argument, or where it may be left out an option."""
    if optional:
        option = typer.Option(
            f"--{name}", callback=utf8_text, autocompletion=_completion(name), help=f"Of this {name}."
        )
        return _parameter(f"name_{name}", Annotated[str | None, option], None)
    argument = typer.Argument(metavar=name.upper(), callback=utf8_text, autocompletion=_completion(name))
    return _parameter(f"name_{name}", Annotated[str, argument])


def _completion(name: str) -> Callable[[typer.Context, str], list[str]] | None:
    if name not in SOURCES:
        return None
    return lambda ctx, incomplete: names_like(name, incomplete, ctx.params)


def _option(at: str, field: Field) -> inspect.Parameter:
    if field.choices:
        kind: Any = Literal[field.choices]
    else:
        kind = TYPES.get(field.kind, str)
    declared = f"{field.flag}/--no-{field.flag[2:]}" if field.kind == "bool" else field.flag
    text = kind is str
    option = typer.Option(
        declared,
        callback=utf8_text if text else _utf8_texts if field.kind == "pairs" else None,
        autocompletion=_completion(field.member) if text else None,
        help=field.help,
        show_default=False,
    )
    if field.required:
        return _parameter(at, Annotated[kind, option])
    return _parameter(at, Annotated[kind | None, option], None)
