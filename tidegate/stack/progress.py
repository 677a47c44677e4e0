"""What the person at the terminal sees: steps, troubles and errors on stderr, results on stdout."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


class StackError(Exception):
    """The stack cannot start or go on; the message says what to do."""


class PortTakenError(StackError):
    """Another process listens on a port that was free when we chose it; with another one it goes on."""


class StopRequestedError(Exception):
    """Somebody pressed Ctrl-C or sent SIGTERM while the stack was starting."""


class Progress:
    """Plain lines, or a spinner for the step that runs when a person watches."""

    def __init__(self) -> None:
        self._steps = Console(stderr=True, highlight=False)
        self._results = Console(highlight=False, soft_wrap=True)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Show that ``name`` is under way, and how long it took once it is done."""
        began = time.monotonic()
        if self._steps.is_terminal:
            with self._steps.status(f"{name} ..."):
                yield
        else:
            yield
        self._steps.print(f"  {name} ({time.monotonic() - began:.1f} s)", markup=False)

    def result(self, line: str) -> None:
        """Print a line that scripts may read."""
        self._results.print(line, markup=False, soft_wrap=True)
        self._results.file.flush()

    def trouble(self, message: str) -> None:
        """Print what went wrong."""
        self._steps.print("tidegate: ", style="bold red", end="")
        self._steps.print(message, markup=False, soft_wrap=True)

    def note(self, message: str) -> None:
        """Print something worth knowing."""
        self._steps.print(message, markup=False, soft_wrap=True)
