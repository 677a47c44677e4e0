"""The command: reads, shows, waits, again."""

import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime

from rich.console import Console
from rich.live import Live

from tidegate.terminal import errors, output
from tidegate.top.readings import AdminReader, NoReadingError, Reading, View, compare
from tidegate.top.screen import as_json, render

FIRST_LOOK_S = 3.5
"""Between the two readings of `--once`: regions say how far they are complete every three seconds at least."""


def run_top(url: str, token: str, *, interval_s: float, once: bool, as_lines: bool) -> int:
    """Show until interrupted, or once. Returns the exit code: 1 when nothing could be read."""
    console = output()
    reader = AdminReader(url, token, datetime.now(UTC))
    with contextlib.closing(reader), contextlib.suppress(KeyboardInterrupt):
        try:
            before = reader.read()
        except NoReadingError as error:
            errors().print(f"tidegate top: {error}", markup=False)
            return 1
        if once:
            time.sleep(FIRST_LOOK_S)
            return _show_once(console, reader, before, as_lines=as_lines)
        if as_lines or not console.is_terminal:
            _print_again_and_again(console, reader, before, interval_s, as_lines=as_lines)
        with Live(render(compare(before, None)), console=console, screen=True, auto_refresh=False) as live:
            _again_and_again(
                reader, before, interval_s, lambda view, trouble: live.update(render(view, trouble), refresh=True)
            )
    return 0


def _show_once(console: Console, reader: AdminReader, before: Reading, *, as_lines: bool) -> int:
    try:
        view = compare(reader.read(), before)
    except NoReadingError as error:
        errors().print(f"tidegate top: {error}", markup=False)
        return 1
    _print(console, view, None, as_lines=as_lines)
    return 0


def _print_again_and_again(
    console: Console, reader: AdminReader, before: Reading, interval_s: float, *, as_lines: bool
) -> None:
    _again_and_again(
        reader, before, interval_s, lambda view, trouble: _print(console, view, trouble, as_lines=as_lines)
    )


def _print(console: Console, view: View, trouble: str | None, *, as_lines: bool) -> None:
    if as_lines:
        console.out(as_json(view, trouble), highlight=False)
    else:
        console.print(render(view, trouble))


def _again_and_again(
    reader: AdminReader, before: Reading, interval_s: float, show: Callable[[View, str | None], None]
) -> None:
    """Show for ever. While the control plane is away the last view stays, with the reason."""
    view = compare(before, None)
    while True:
        time.sleep(interval_s)
        try:
            now = reader.read()
        except NoReadingError as error:
            show(view, str(error))
            continue
        view = compare(now, before)
        show(view, None)
        # rates need some of every region's time between two readings
        if any(now.until.get(region) != before.until.get(region) for region in now.regions):
            before = now
