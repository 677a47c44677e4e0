"""The tables of jobs and their leader."""

from datetime import datetime

from sqlalchemy import CheckConstraint, SmallInteger, func
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.orm import Base


class JobRow(Base):
    """A job's last run. ``outcome`` is null before the first one ended; ``started_at`` after ``finished_at``: it runs.

    ``requested_at`` is when somebody last asked for a run by hand; it is served once ``started_at`` is later.
    """

    __tablename__ = "jobs"
    __table_args__ = (CheckConstraint("outcome IN ('done', 'failed')", name="outcome"),)

    job: Mapped[str] = mapped_column(primary_key=True)
    replica: Mapped[str | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    duration_ms: Mapped[int | None]
    outcome: Mapped[str | None]
    detail: Mapped[str | None]
    next_run_at: Mapped[datetime | None]
    runs: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    requested_at: Mapped[datetime | None]
    requested_by: Mapped[str | None]


class Leader(Base):
    """The replica that last won the lock of the leader: for people to read; the lock alone decides."""

    __tablename__ = "leader"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    replica: Mapped[str]
    since: Mapped[datetime] = mapped_column(server_default=func.now())
