"""The two views of one configuration while a roll-out is under way: the head, and what other nodes have."""

from typing import NamedTuple, cast

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.canary import repository as rollouts
from control_plane.canary.models import RolloutRow
from control_plane.publishing import repository
from control_plane.publishing.documents import DocumentKey
from tidegate.contract.config import Kind

Held = dict[DocumentKey, str | None]
"""Held-back documents, each as it was before the roll-out (``None``: it did not exist)."""


class Views(NamedTuple):
    """The newest revision, and what nodes outside the stage of a roll-out should have (the same where there is none).

    ``node`` is empty in the stage of a whole region. ``rollout`` is the revision that began it, ``stage_revision`` what
    nodes of the stage must apply.
    """

    head: repository.Head
    stable: repository.Head
    region: str = ""
    node: str = ""
    stage_revision: int = 0
    rollout: int = 0

    @property
    def is_staged(self) -> bool:
        """Whether a roll-out is under way."""
        return bool(self.region)

    def in_stage(self, region: str, node: str) -> bool:
        """Whether this node gets the head."""
        return not self.region or (region == self.region and self.node in ("", node))

    def of(self, region: str, node: str) -> repository.Head:
        """What this node should have."""
        return self.head if self.in_stage(region, node) else self.stable

    def stage_within(self, region: str, node: str, has: int, gets: int) -> int | None:
        """The stage's revision, where this node gets it on the way from revision ``has`` to ``gets``."""
        if self.is_staged and self.in_stage(region, node) and has < self.stage_revision <= gets:
            return self.stage_revision
        return None


async def views(session: AsyncSession) -> Views:
    """Both views in this session."""
    row = await repository.whole_head(session)
    head = repository.Head(row.revision, row.digest)
    if row.rollout is None:
        return Views(head, head)
    stable = repository.Head(row.stable_revision or 0, row.stable_digest or repository.NOTHING)
    under_way = await rollouts.rollout(session, row.rollout)
    stage_revision = 0 if under_way is None else under_way.stage_revision
    return Views(head, stable, row.stage_region or "", row.stage_node or "", stage_revision, row.rollout)


def held_by(rollout: RolloutRow) -> Held:
    """What a roll-out holds back."""
    return {DocumentKey(cast("Kind", item["kind"]), item["id"]): item["before"] for item in rollout.held}
