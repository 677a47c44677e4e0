"""The commands as the shell sees them; what they need is imported when one of them is called."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from tidegate.arguments import LOCAL_CONTROL_PLANE, ControlPlaneUrl, TokenFile, admin_token, header_text

FileName = Annotated[Path, typer.Option("-f", "--file", help="The file; - is standard input.")]
Prune = Annotated[
    list[str] | None, typer.Option(help="clients: delete clients and overrides that the file leaves out.")
]
AllowDeletes = Annotated[int, typer.Option(min=0, help="How many deletions are allowed, if more than 10.")]
AnyDeletes = Annotated[
    int, typer.Option(min=0, show_default=False, help="An error, not a difference, beyond so many deletions.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
DEFAULT_FILE = Path("tidegate.yaml")


class _Diff(TyperCommand):
    """2 says that something differs: a wrong argument is 1, as every other error is."""

    def make_context(self, *arguments: Any, **named: Any) -> Any:
        """Read the arguments."""
        try:
            return super().make_context(*arguments, **named)
        except typer.TyperException as error:
            error.exit_code = 1
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except typer.TyperException as error:
            error.exit_code = 1
            raise


def apply(
    *,
    file: FileName = DEFAULT_FILE,
    url: ControlPlaneUrl = LOCAL_CONTROL_PLANE,
    token_file: TokenFile = None,
    prune: Prune = None,
    allow_deletes: AllowDeletes = 0,
    if_match: Annotated[
        str | None, typer.Option(callback=header_text, help="Only onto this revision, the one that was read.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option(callback=header_text, help="Why, for the history and the audit log.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the configuration what a file says: all of it in one revision, or nothing. Exits with 1 on an error."""
    from tidegate.file.commands import Wanted, run_apply

    wanted = Wanted(url, admin_token(token_file), file, tuple(prune or ()), allow_deletes, if_match, reason, as_json)
    sys.exit(run_apply(wanted))


def diff(
    *,
    file: FileName = DEFAULT_FILE,
    url: ControlPlaneUrl = LOCAL_CONTROL_PLANE,
    token_file: TokenFile = None,
    prune: Prune = None,
    allow_deletes: AnyDeletes = 10**9,
    as_json: AsJson = False,
) -> None:
    """Show what an apply would change. Exits with 0 when nothing differs, 2 when something does, 1 on an error."""
    from tidegate.file.commands import Wanted, run_diff

    wanted = Wanted(url, admin_token(token_file), file, tuple(prune or ()), allow_deletes, as_json=as_json)
    sys.exit(run_diff(wanted))


def export(
    *,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Where to; else standard output.")] = None,
    url: ControlPlaneUrl = LOCAL_CONTROL_PLANE,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Write the configuration as a file: without secrets, hashes and runtime state."""
    from tidegate.file.commands import run_export

    sys.exit(run_export(url, admin_token(token_file), out, as_json=as_json))


def schema() -> None:
    """Print the JSON Schema of the file, with which editors check and complete it."""
    from control_plane.config_file.sections import json_schema

    typer.echo(json_schema(), nl=False)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (apply, export, schema):
        app.command()(command)
    app.command(cls=_Diff)(diff)
