"""Which counters it is time to tell peers of: what matters now, the rest within a second."""

from collections.abc import Callable, Mapping, Sequence

from contract.counts import Cell
from contract.limits import capacity
from data_plane.domain.regions.book import Cell as Figures
from data_plane.domain.regions.book import Life
from data_plane.domain.regions.keys import ToldLimit
from data_plane.domain.regions.rules import ALL_RULES, DEFAULT_TIMING
from data_plane.domain.regions.telling import Marked, is_pressing
from data_plane.services.count_store import MarkedKey


def due_of(
    marked: Sequence[MarkedKey], limit_of: Callable[[bytes], ToldLimit | None], told: Mapping[bytes, tuple[int, int]],
    regions: int, now_us: int, *, at_once: bool,
) -> tuple[list[Marked], int]:  # fmt: skip
    """Counters that are due, and since when (microseconds) the oldest of the others waits.

    ``limit_of`` finds a counter's limit, ``told`` has the window and the units that were last told of a counter;
    ``at_once``: everything is due.
    """
    due: list[Marked] = []
    waiting_us = now_us
    latest_us = now_us + DEFAULT_TIMING.tick_us - DEFAULT_TIMING.lazy_us
    for one in marked:
        cells = one.own.cells
        limit = limit_of(one.key)
        if not cells or limit is None:
            continue
        current = cells[-1]
        window, units = told.get(one.key, (0, 0))
        unsent = current.taken - current.returned - (units if window == current.window else 0)
        room = max(0, capacity(limit.rule) - one.own.known)
        pressing = at_once or is_pressing(abs(unsent), room, regions, ALL_RULES)
        if pressing or one.since_us <= latest_us:
            due.append(Marked(one.key.decode("latin-1"), 0, _version(cells), one.since_us, pressing))
        else:
            waiting_us = min(waiting_us, one.since_us)
    return due, waiting_us


def _version(cells: Sequence[Cell]) -> tuple[tuple[Life, Figures], ...]:
    """A counter's own cells as the teller compares them; whose they are goes without saying."""
    return tuple((("", 0, cell.window), Figures(cell.taken, cell.returned)) for cell in cells)
