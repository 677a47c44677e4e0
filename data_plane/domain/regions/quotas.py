"""Regional shares as a function of the window id."""

from typing import NamedTuple

NO_ID = -(2**60)
"""Before every id."""


class Quota(NamedTuple):
    """One region's share of a limit, in whole units, from ``from_id`` on; for buckets its share of the capacity."""

    from_id: int
    share: int
    limit: int


Schedule = tuple[Quota, ...]
"""Quotas, oldest first; the first one holds for all earlier ids too."""
