"""The tables of roll-outs and their policy."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.orm import Base


class RolloutRow(Base):
    """A revision on its way. ``number`` is where it began; ``stage_revision`` what nodes of the stage must apply.

    ``held`` are objects of ``kind``, ``id``, ``before``: the documents that nodes outside the stage do not get yet.
    """

    __tablename__ = "rollouts"
    __table_args__ = (CheckConstraint("state IN ('node', 'region', 'done', 'rolled_back')", name="state"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    state: Mapped[str]
    region: Mapped[str]
    node: Mapped[str]
    base_revision: Mapped[int]
    stage_revision: Mapped[int]
    released_revision: Mapped[int | None]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    stage_at: Mapped[datetime] = mapped_column(server_default=func.now())
    acked_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    node_pause_s: Mapped[float]
    region_pause_s: Mapped[float]
    max_denial_rise: Mapped[float]
    max_degraded_rise: Mapped[float]
    min_decisions: Mapped[int]
    held: Mapped[list[dict[str, Any]]] = mapped_column(deferred=True)
