"""The command as the shell sees it; what it needs is imported when it is called."""

import sys
from pathlib import Path
from typing import Annotated

import typer

importing = typer.Typer(
    name="import", help="Make a file for `apply` out of another rate limiter's.", no_args_is_help=True
)
Out = Annotated[Path | None, typer.Option("-o", "--out", help="Where to; else standard output.")]


@importing.command("envoy-ratelimit")
def envoy_ratelimit(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Its configuration; - is standard input.")],
    out: Out = None,
) -> None:
    """Descriptors of envoyproxy/ratelimit become limits. Remarks say what has no counterpart."""
    from tidegate.importing.command import run_envoy_ratelimit

    sys.exit(run_envoy_ratelimit(files, out))


@importing.command("kong")
def kong(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A declarative kong.yml; - is standard input.")],
    out: Out = None,
) -> None:
    """Routes, consumers and rate limiting plugins become endpoints, clients, plans and limits."""
    from tidegate.importing.command import run_kong

    sys.exit(run_kong(file, out))


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(importing)
