"""The tables of quotas that move."""

from datetime import datetime
from typing import Any

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.orm import Base

THE_LIMIT, CLIENTS = "", "*"


class QuotaMove(Base):
    """How a limit's shares came to be where they are (``share_schedule.Schedule``); kept while older steps matter.

    It survives a crash between cut and raise: whoever leads next goes on from here. ``cut_revision`` is the revision
    that nodes must acknowledge; ``raise_at_us`` is when a ``regional`` share may rise, once they have; ``freed`` are
    regions that an operator declared dead. ``whose`` shares they are: ``THE_LIMIT``'s own in units, or in parts those
    of ``CLIENTS`` with figures of their own.
    """

    __tablename__ = "quota_moves"

    rule_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    whose: Mapped[str] = mapped_column(primary_key=True, server_default="", default="")
    plan: Mapped[str | None]
    limit_name: Mapped[str]
    schedule: Mapped[dict[str, Any]] = mapped_column(JSONB)
    waiting: Mapped[bool] = mapped_column(index=True)
    cut_revision: Mapped[int]
    cut_at: Mapped[datetime] = mapped_column(server_default=func.now())
    raise_at_us: Mapped[int | None]
    freed: Mapped[list[str]]
    author: Mapped[str]
    reason: Mapped[str | None]


class QuotaBalance(Base):
    """What the rebalancer last decided on a limit with ``auto`` shares. ``demand`` is units a region in its period."""

    __tablename__ = "quota_balances"

    rule_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    moved: Mapped[bool]
    reason: Mapped[str]
    demand: Mapped[dict[str, Any]] = mapped_column(JSONB)
