"""The table of enforcement overrides."""

from datetime import datetime

from sqlalchemy import CheckConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.orm import Base


class EnforcementRow(Base):
    """An enforcement override in force: ``target`` is ``*`` for all limits, else ``plan/limit`` or ``_/limit``."""

    __tablename__ = "enforcement"
    __table_args__ = (CheckConstraint("mode IN ('enforce', 'shadow')", name="mode"),)

    target: Mapped[str] = mapped_column(primary_key=True)
    mode: Mapped[str]
    reason: Mapped[str | None]
    expires_at: Mapped[datetime | None]
    set_at: Mapped[datetime] = mapped_column(server_default=func.now())
