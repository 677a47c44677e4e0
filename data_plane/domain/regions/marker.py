"""The marker that says which life of a region's store this is, and from which revision on its shares hold.

It lies in each slot group. Every script that spends, gives or takes rights reads it first and refuses when the calling
node's view differs: a node that reconnects must look at the server's run id before anything else.
"""

from typing import Literal, NamedTuple

from data_plane.domain.regions.rules import Rules

Refusal = Literal["no_marker", "other_incarnation", "node_outdated", "evicting_store"]


class Marker(NamedTuple):
    """``birth_us`` is 0 where the control plane knows that the region never had another store: nothing was lost."""

    incarnation: int
    birth_us: int
    revision: int
    run_id: str


class View(NamedTuple):
    """What a node believes of the store that it is connected to."""

    incarnation: int
    revision: int


def refusal(marker: Marker | None, view: View, rules: Rules) -> Refusal | None:
    """Why a script does nothing for this node; ``None`` when it may go on."""
    if not rules.marker_checked:
        return None
    if marker is None:
        return "no_marker"
    if marker.incarnation != view.incarnation:
        return "other_incarnation"
    return "node_outdated" if marker.revision > view.revision else None


def joined(
    marker: Marker | None,
    *,
    run_id: str,
    policy: str,
    revision: int,
    now_us: int,
    fresh: int,
    first: bool,
    rules: Rules,
) -> Marker | Refusal:
    """The marker after a node connected: kept, or a new incarnation (``fresh`` is its name) when data may be lost.

    ``policy`` is the server's ``maxmemory-policy``; ``first`` says that the region never had a store before.
    """
    if rules.noeviction_only and policy != "noeviction":
        return "evicting_store"
    if marker is None:
        return Marker(fresh, 0 if first else now_us, revision, run_id)
    if marker.run_id != run_id:
        if rules.restart_is_new_incarnation:
            return Marker(fresh, now_us, max(revision, marker.revision), run_id)
        return marker._replace(run_id=run_id, revision=max(revision, marker.revision))
    return marker._replace(revision=max(revision, marker.revision))
