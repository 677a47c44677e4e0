"""Regional shares as a function of the window id, and how they change without a moment of too much.

The control plane plans a change in two steps. Regions whose share falls (or all, when the limit falls) cut first and
acknowledge the id from which nothing was spent or given on the old share; shares rise from the largest of these ids.
"""

from typing import NamedTuple

from data_plane.domain.regions.rules import Rules


class Quota(NamedTuple):
    """One region's share of a limit, in whole units, from ``from_id`` on; for buckets its share of the capacity."""

    from_id: int
    share: int
    limit: int


Schedule = tuple[Quota, ...]
"""Quotas, oldest first; the first one holds for all earlier ids too."""


def quota_at(schedule: Schedule, id: int) -> Quota:
    """The quota in force under ``id``."""
    for quota in reversed(schedule):
        if quota.from_id <= id:
            return quota
    return schedule[0]


def cut(schedule: Schedule, target: Quota, current_id: int, free_id: int, rules: Rules) -> tuple[Schedule, int]:
    """Lower a share to the target's; the new schedule, and the id from which the old one cannot have been used.

    A lowered limit is felt at once: what was used beyond it stays as a shortfall. A share that only moves to another
    region is cut from the free id on, so that inside an id rights move by transfers alone.
    """
    if not rules.shares_by_id:
        return _then(schedule, target._replace(from_id=current_id)), current_id
    latest = quota_at(schedule, free_id)
    if target.limit < latest.limit:
        at_once = quota_at(schedule, current_id)
        schedule = _then(schedule, _smaller(at_once, target)._replace(from_id=current_id, limit=at_once.limit))
    return _then(schedule, _smaller(latest, target)._replace(from_id=free_id, limit=target.limit)), free_id


def raise_from(schedule: Schedule, target: Quota) -> Schedule:
    """The target's share from ``target.from_id`` on."""
    return _then(schedule, target)


def _smaller(one: Quota, other: Quota) -> Quota:
    """No more than either gives."""
    return one._replace(share=min(one.share, other.share))


def _then(schedule: Schedule, quota: Quota) -> Schedule:
    """What was before ``quota.from_id``, then ``quota``."""
    earlier = tuple(one for one in schedule if one.from_id < quota.from_id)
    return (*(earlier or (schedule[0]._replace(from_id=quota.from_id - 1),)), quota)
