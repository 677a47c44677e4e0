"""What a region owns under a window id, by its schedule: the oracle of tests of shares."""

from data_plane.store.strict_packing import Quota, Schedule


def quota_at(schedule: Schedule, id: int) -> Quota:
    """The quota in force under ``id``."""
    for quota in reversed(schedule):
        if quota.from_id <= id:
            return quota
    return schedule[0]
