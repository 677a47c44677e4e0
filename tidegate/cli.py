"""The `tidegate` command. Each subcommand imports what it needs when it is called, so that all of them start fast."""

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from tidegate.admin.app import register as register_resources
from tidegate.arguments import (
    LOCAL_CONTROL_PLANE,
    ControlPlaneUrl,
    TokenFile,
    admin_token,
    gateway_token,
    server_url,
    utf8_text,
)
from tidegate.file.app import register as register_file_commands
from tidegate.importing.app import register as register_imports

NOT_WRITTEN = os.EX_IOERR
"""Not 1 or 2: those mean something to who calls `check` or `diff`."""

app = typer.Typer(
    name="tidegate",
    help="Multi-region rate limiting with a control plane.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # its tracebacks show local variables, and those hold secrets
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"tidegate {version('tidegate')}")
        raise typer.Exit


@contextlib.contextmanager
def _importing() -> Iterator[None]:
    """What modules are made of stays: looking for garbage among it takes a fifth of the start."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def up(
    *,
    regions: Annotated[str, typer.Option(help="Names of the regions, separated by commas.")] = "us-east,eu-west",
    data_dir: Annotated[
        Path | None, typer.Option(help="Keep state here between runs. Without it everything is removed at exit.")
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Make plans, clients and keys, and print requests to try.")
    ] = False,
    control_plane_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the control plane.")] = 8000,
    first_node_port: Annotated[
        int,
        typer.Option(
            min=1, max=65535, help="Port of the first region's node; the next region's is one higher, and so on."
        ),
    ] = 8101,
    first_agent_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the first region's agent; the next is one higher, and so on.")
    ] = 8201,
    nodes_per_region: Annotated[
        int, typer.Option(min=1, max=8, help="Nodes in each region; the second ones are on ports 10 higher, and so on.")
    ] = 1,
    rls_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of the first node for Envoy's rate limit protocol (gRPC)."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A setting of the control plane, nodes or agents; repeatable."
        ),
    ] = None,
    drain_s: Annotated[
        float | None, typer.Option(min=0, help="Seconds that a node drains when it stops; 0 by default.")
    ] = None,
) -> None:
    """Run everything on this machine: Postgres, the control plane, and in each region a Valkey, an agent and nodes.

    TIDEGATE_ADMIN_TOKEN sets the first admin token; else one is made and printed once. Other settings of the
    environment (TIDEGATE_UNKNOWN_KEY, ...) go to the processes that know them; --set takes precedence.
    """
    from tidegate.stack.layout import StackOptions
    from tidegate.stack.passed_on import settings_to_pass_on
    from tidegate.stack.progress import StackError
    from tidegate.stack.up import STOP_SIGNALS, run_up

    given = [*(settings or ()), *([] if drain_s is None else [f"DRAIN_S={drain_s:g}"])]
    try:
        passed_on = settings_to_pass_on(os.environ, given)
    except StackError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None

    options = StackOptions(
        regions=tuple(name.strip() for name in regions.split(",") if name.strip()),
        data_dir=data_dir,
        demo=demo,
        control_plane_port=control_plane_port,
        first_node_port=first_node_port,
        first_agent_port=first_agent_port,
        nodes_per_region=nodes_per_region,
        rls_port=rls_port,
        admin_token=os.environ.get("TIDEGATE_ADMIN_TOKEN"),
        settings=passed_on,
    )
    code = run_up(options)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # else Python, as it exits, lets the next one end the process
    sys.exit(code)


@app.command("control-plane")
def control_plane() -> None:
    """Run the control plane; its settings come from TIDEGATE_* environment variables."""
    with _importing():
        from control_plane.server import run
        from control_plane.settings import Settings, SettingsError
        from tidegate.environment import from_environment
        from tidegate.logs import configure_logs

    settings = from_environment(Settings)
    configure_logs(settings.log_level)
    try:
        run(settings)
    except SettingsError as error:
        name, _, problem = str(error).partition(":")
        typer.echo(f"TIDEGATE_{name.upper()}:{problem}", err=True)
        raise typer.Exit(2) from None


@app.command("data-plane")
def data_plane() -> None:
    """Run a decision node; its settings come from TIDEGATE_* environment variables."""
    with _importing():
        from data_plane.main import run
        from data_plane.settings import Settings
        from tidegate.environment import from_environment
        from tidegate.logs import configure_logs

    settings = from_environment(Settings)
    configure_logs(settings.log_level)
    run(settings)


@app.command("region-agent")
def region_agent() -> None:
    """Run an agent of a region; its settings come from TIDEGATE_* environment variables."""
    with _importing():
        from data_plane.main import run_agent
        from data_plane.settings import AgentSettings
        from tidegate.environment import from_environment
        from tidegate.logs import configure_logs

    settings = from_environment(AgentSettings)
    configure_logs(settings.log_level)
    run_agent(settings)


@app.command()
def migrate(
    wait_s: Annotated[float, typer.Option(min=0, help="Seconds to wait for the database to take connections.")] = 0,
    to: Annotated[str, typer.Option("--to", metavar="REV", help="A revision like 0001, or head.")] = "head",
) -> None:
    """Bring the database at TIDEGATE_DATABASE_URL to the newest schema, or to that of another version, up or down."""
    from control_plane.postgres import libpq_url
    from tidegate.migrate import migrate_when_ready

    url = os.environ.get("TIDEGATE_DATABASE_URL")
    if not url:
        raise typer.BadParameter("set TIDEGATE_DATABASE_URL, for example postgresql://user@host/database")
    try:
        libpq_url(url)
    except ValueError as error:
        raise typer.BadParameter(f"TIDEGATE_DATABASE_URL {error}") from None
    sys.exit(migrate_when_ready(url, wait_s=wait_s, to=to))


@app.command("signing-key")
def signing_key(
    path: Annotated[Path, typer.Argument(help="The file of the private key; made unless it is there.")],
) -> None:
    """Make the control plane's signing key; print its public half, which nodes need."""
    from tidegate.signing_key import make_or_show

    sys.exit(make_or_show(path))


@app.command()
def check(
    context: typer.Context,
    *,
    api_key: Annotated[
        str | None, typer.Option(envvar="TIDEGATE_API_KEY", callback=utf8_text, help="The caller's key.")
    ] = None,
    ip: Annotated[str | None, typer.Option(callback=utf8_text, help="The caller's address.")] = None,
    method: Annotated[str | None, typer.Option(callback=utf8_text, help="HTTP method of the request.")] = None,
    path: Annotated[str | None, typer.Option(callback=utf8_text, help="Path of the request.")] = None,
    endpoint: Annotated[
        str | None, typer.Option(callback=utf8_text, help="Name of a route, in place of method and path.")
    ] = None,
    client: Annotated[str | None, typer.Option(callback=utf8_text, help="Name of a client, in place of a key.")] = None,
    cost: Annotated[int, typer.Option(min=0, help="Units to take; 0 only looks.")] = 1,
    url: Annotated[
        str, typer.Option(envvar="TIDEGATE_NODE_URL", callback=server_url, help="The node to ask.")
    ] = "http://127.0.0.1:8101",
    as_json: Annotated[bool, typer.Option("--json", help="Print the node's answer as it is.")] = False,
) -> None:
    """Ask a node once. Exits with 0 when allowed, 1 when denied (or a look finds nothing left), 2 without an answer.

    3: allowed, but as anybody without a key is, since the node does not know the one that was sent.

    TIDEGATE_GATEWAY_TOKEN is the token for nodes that want one.
    """
    from tidegate.check import ask, show

    source = context.get_parameter_source("api_key")
    if client is not None and source is not None and source.name == "ENVIRONMENT":
        api_key = None  # the client was typed, the key was not
    question = {
        "api_key": api_key,
        "client": client,
        "ip": ip,
        "method": method,
        "path": path,
        "endpoint": endpoint,
        "cost": cost,
    }
    asked = {name: value for name, value in question.items() if value is not None}
    sys.exit(show(ask(url, asked, token=gateway_token()), asked, as_json=as_json))


@app.command()
def top(
    *,
    url: ControlPlaneUrl = LOCAL_CONTROL_PLANE,
    token_file: TokenFile = None,
    interval_s: Annotated[float, typer.Option(min=0.5, max=60, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look for a few seconds, print, end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a look, for machines.")] = False,
) -> None:
    """Watch regions, nodes, rates, denials, lag and the busiest clients. A viewer's token is enough."""
    from tidegate.top.command import run_top

    sys.exit(run_top(url, admin_token(token_file), interval_s=interval_s, once=once, as_lines=as_json))


@app.command()
def why(
    asked: Annotated[
        str,
        typer.Argument(
            metavar="WHAT", callback=utf8_text, help="A request id, a client, the beginning of a key, or an address."
        ),
    ],
    *,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="About when: 10:42 (UTC), or 2026-11-30T10:42:00+01:00.")
    ] = None,
    url: ControlPlaneUrl = LOCAL_CONTROL_PLANE,
    token_file: TokenFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Say why a request was denied, and what can be done. A viewer's token is enough.

    Exits with 0 when a denial was found, 1 when none is remembered, 2 without an answer.
    """
    from datetime import UTC, datetime

    from control_plane.console.pages.verdict import moment
    from tidegate.why import run_why

    if not asked.strip():
        raise typer.BadParameter("WHAT is empty")
    try:
        about = None if at is None else moment(at, datetime.now(UTC))
    except ValueError:
        raise typer.BadParameter("--at is a time like 10:42 or 2026-11-30T10:42:00Z") from None
    sys.exit(run_why(url, admin_token(token_file), asked, about, as_json=as_json))


register_file_commands(app)
register_imports(app)
register_resources(app)


def main() -> None:
    """Entry point of the console script."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except OSError as error:  # the disk under standard output is full, for one
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or what is left is flushed once more
        print(f"tidegate: {error}", file=sys.stderr)  # noqa: T201 - the command's answer
        sys.exit(NOT_WRITTEN)
