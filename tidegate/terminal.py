"""Where the commands write: terminals of any width, and pipes, which have none."""

import os
import sys
from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

UNBOUNDED = 1_000


def output() -> Console:
    """Standard output. In a pipe or a file nothing is wrapped or cut, unless ``COLUMNS`` says how wide it is."""
    bounded = sys.stdout.isatty() or os.environ.get("COLUMNS")
    return Console(highlight=False, emoji=False, width=None if bounded else UNBOUNDED)


def errors() -> Console:
    """Standard error, a line a message."""
    return Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


def printable(text: str) -> str:
    """``text`` without what would steer a terminal: strangers name their requests."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


class Fitting:
    """A table, its columns as narrow as their words allow; where they do not fit either, its rows as lines."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """As rich asks for it, which by itself would sooner cut a word than let another column wrap."""
        table = self._table
        texts = [[str(column.header), *map(str, column.cells)] for column in table.columns]
        widths = [max(map(len, column)) for column in texts]
        least = [max((len(word) for text in column for word in text.split()), default=0) for column in texts]
        natural = Measurement.get(console, options.update(width=UNBOUNDED), table).maximum
        missing = natural - options.max_width
        for _ in range(missing):
            widest = max(range(len(widths)), key=lambda at: (widths[at] > least[at], widths[at]))
            if widths[widest] == least[widest]:
                yield from _as_lines(table)
                return
            widths[widest] -= 1
        if missing > 0:
            for column, width in zip(table.columns, widths, strict=True):
                column.width = width
        yield table


def _as_lines(table: Table) -> Iterator[Text]:
    if table.title:
        yield Text.from_markup(str(table.title))
    for row in zip(*(column.cells for column in table.columns), strict=True):
        yield Text()
        for column, cell in zip(table.columns, row, strict=True):
            yield Text.assemble(f"{column.header}: ", cell if isinstance(cell, Text) else Text(str(cell)))
