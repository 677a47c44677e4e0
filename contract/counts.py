"""What regions tell each other of shared limits: absolute counts, so that retries and reordering are harmless."""

import msgspec

PROTOCOL_VERSION = 1


class Cell(msgspec.Struct, frozen=True, array_like=True):
    """What one region counted for one stored key under one window id; both figures only grow.

    ``key`` is the counter's key, ``window`` its window id. For buckets the window is 0 and ``taken`` is all that was
    ever taken since the cell's ``born_us``.
    """

    key: str
    window: int
    taken: int
    returned: int = 0
    born_us: int = 0


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """A batch of cells from one region and incarnation of its store."""

    version: int = PROTOCOL_VERSION
    region: str
    incarnation: str
    sent_at: float
    cells: tuple[Cell, ...]
