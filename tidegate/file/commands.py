"""What the file's commands do. Exit codes: 0 all is as the file says, 2 (of ``diff``) something differs, 1 an error."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tidegate.file.document import ConfigDocument, FileError, to_yaml
from tidegate.file.remote import ControlPlane, RefusedError
from tidegate.file.show import show_changes, show_rollout, show_runtime
from tidegate.terminal import errors as standard_error
from tidegate.terminal import output

SAME, FAILED, DIFFERENT = 0, 1, 2
MANY_CLIENTS = 1_000


class Wanted(NamedTuple):
    """What the command line asks for."""

    url: str
    token: str
    file: Path
    prune: tuple[str, ...] = ()
    allow_deletes: int = 0
    if_match: str | None = None
    reason: str | None = None
    as_json: bool = False


def run_apply(wanted: Wanted) -> int:
    """Make the configuration what the file says."""
    return _run(wanted, dry_run=False)


def run_diff(wanted: Wanted) -> int:
    """Show what an apply would change."""
    return _run(wanted, dry_run=True)


def run_export(url: str, token: str, out: Path | None, *, as_json: bool) -> int:
    """Write the configuration as a file."""
    errors = standard_error()
    try:
        with ControlPlane(url, token) as control_plane:
            content, tag = control_plane.read()
    except RefusedError as error:
        errors.print(f"{error}", style="red", markup=False)
        return FAILED
    text = json.dumps(content, indent=2) + "\n" if as_json else to_yaml(content)
    if out is None:
        output().out(text, end="")
    else:
        try:
            out.write_text(text, encoding="utf-8")
        except OSError as error:
            errors.print(f"{out}: {error.strerror}", style="red", markup=False)
            return FAILED
        errors.print(f"revision {tag.strip(chr(34))} written to {out}", markup=False)
    return SAME


def _run(wanted: Wanted, *, dry_run: bool) -> int:
    console, errors = output(), standard_error()
    document = None
    try:
        document = ConfigDocument.from_path(wanted.file)
        result = _write(wanted, document, errors, dry_run=dry_run)
    except FileError as error:
        errors.print(f"{error}", style="red", markup=False)
        return FAILED
    except RefusedError as error:
        _show_refusal(errors, error, document)
        return FAILED
    if wanted.as_json:
        console.out(json.dumps(result, indent=2))
    else:
        show_changes(console, result, tense="would be" if dry_run else f"revision {result['revision']}")
        show_rollout(console, result)
        if dry_run:
            show_runtime(console, result)
    return DIFFERENT if dry_run and result["counts"] else SAME


def _write(wanted: Wanted, document: ConfigDocument, errors: Console, *, dry_run: bool) -> dict[str, Any]:
    params = {"allow_deletes": str(wanted.allow_deletes)}
    if wanted.prune:
        params["prune"] = ",".join(wanted.prune)
    headers = {}
    if wanted.if_match is not None:
        headers["If-Match"] = f'"{wanted.if_match.strip(chr(34))}"'
    if wanted.reason is not None:
        headers["X-Tidegate-Reason"] = wanted.reason
    body = document.as_json()
    with (
        ControlPlane(wanted.url, wanted.token) as control_plane,
        _progress(errors, len(body), document.clients) as (sent, written),
    ):
        return control_plane.write(body, dry_run=dry_run, params=params, headers=headers, sent=sent, written=written)


@contextmanager
def _progress(errors: Console, size: int, clients: int) -> Iterator[Any]:
    """Bars on standard error, where there is a terminal and so many clients that it takes a while."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, disable=clients < MANY_CLIENTS, transient=False) as progress:
        sending = progress.add_task("sent, KiB", total=max(1, size // 1024))
        writing = progress.add_task("clients", total=None)
        yield (
            lambda count: progress.update(sending, completed=count // 1024),
            lambda done, of: progress.update(writing, completed=done, total=max(1, of)),
        )


def _show_refusal(errors: Console, error: RefusedError, document: ConfigDocument | None) -> None:
    if not error.errors or document is None:
        errors.print(f"{error}", style="red", markup=False)
    for field, message in error.errors:
        line = None if document is None else document.line_of(field)
        place = "" if document is None else f"{document.name}:{line}: " if line else f"{document.name}: "
        errors.print(f"{place}{field}: {message}", style="red", markup=False)
