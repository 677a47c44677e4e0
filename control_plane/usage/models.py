"""The tables of usage. Those that grow are partitioned by time; their partitions live in the schema ``usage_parts``."""

from datetime import date, datetime

from sqlalchemy import Date, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.orm import Base

PARTS_SCHEMA = "usage_parts"
"""Partitions have a schema of their own, so that migrations can ignore them."""
LARGEST = 2**61
"""No figure grows beyond it, whatever nonsense a region sends: a bigint holds the sum of two."""
WHOLE = ""
"""In ``limit_name``: the request as a whole. Rows of limits say how often each limit took part."""


class _Figures:
    """The figures of usage. ``denied_cost`` is the cost of denied requests."""

    allowed: Mapped[int]
    denied: Mapped[int]
    shadow_denied: Mapped[int]
    cost: Mapped[int]
    denied_cost: Mapped[int]


class UsageHour(_Figures, Base):
    """One client's hour. Rows of the whole request (``limit_name`` empty) are by key too; those of limits are not."""

    __tablename__ = "usage_hourly"
    __table_args__ = (
        Index("ix_usage_hourly_limit", "plan", "limit_name", "hour"),
        {"postgresql_partition_by": "RANGE (hour)"},
    )

    client: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    plan: Mapped[str] = mapped_column(primary_key=True)
    limit_name: Mapped[str] = mapped_column(primary_key=True)
    endpoint: Mapped[str] = mapped_column(primary_key=True)
    region: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(primary_key=True)


class UsageDay(_Figures, Base):
    """One client's day, made of its hours by a job; it outlives the hours."""

    __tablename__ = "usage_daily"
    __table_args__ = (
        Index("ix_usage_daily_limit", "plan", "limit_name", "day"),
        {"postgresql_partition_by": "RANGE (day)"},
    )

    client: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    plan: Mapped[str] = mapped_column(primary_key=True)
    limit_name: Mapped[str] = mapped_column(primary_key=True)
    endpoint: Mapped[str] = mapped_column(primary_key=True)
    region: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(primary_key=True)


class UsageTotal(_Figures, Base):
    """The hour of all clients together, so that totals need not add up millions of rows."""

    __tablename__ = "usage_totals"
    __table_args__ = {"postgresql_partition_by": "RANGE (hour)"}  # noqa: RUF012  SQLAlchemy's own attribute

    hour: Mapped[datetime] = mapped_column(primary_key=True)
    plan: Mapped[str] = mapped_column(primary_key=True)
    limit_name: Mapped[str] = mapped_column(primary_key=True)
    endpoint: Mapped[str] = mapped_column(primary_key=True)
    region: Mapped[str] = mapped_column(primary_key=True)


class UsageDayState(Base):
    """A day with usage. ``stale``: its daily rows lack some hours."""

    __tablename__ = "usage_days"

    day: Mapped[date] = mapped_column(Date, primary_key=True)
    stale: Mapped[bool]
    rolled_up_at: Mapped[datetime | None]


class UsageSource(Base):
    """One run of one node: the last batch taken from it. A gap in its sequence is a lost batch."""

    __tablename__ = "usage_sources"

    region: Mapped[str] = mapped_column(primary_key=True)
    node: Mapped[str] = mapped_column(primary_key=True)
    incarnation: Mapped[str] = mapped_column(primary_key=True)
    sequence: Mapped[int]
    lost_batches: Mapped[int]
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class UsageRegion(Base):
    """How far a region's usage is complete, and when it last sent."""

    __tablename__ = "usage_regions"

    region: Mapped[str] = mapped_column(primary_key=True)
    complete_until: Mapped[datetime | None]
    shipped_at: Mapped[datetime] = mapped_column(server_default=func.now())


class UsageWebhookRow(Base):
    """A receiver of alerts about clients near their limits. Its signing key is derived from ``salt`` and not stored."""

    __tablename__ = "usage_webhooks"

    webhook: Mapped[str] = mapped_column(primary_key=True)
    url: Mapped[str]
    plan: Mapped[str | None]
    client: Mapped[str | None]
    thresholds: Mapped[list[float]] = mapped_column(JSONB)
    enabled: Mapped[bool]
    salt: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class UsageAlert(Base):
    """One message of a webhook: one for a client, limit, window and threshold, retried until it is delivered."""

    __tablename__ = "usage_alerts"
    __table_args__ = (
        Index(
            "uq_usage_alerts_once", "webhook", "client", "plan", "limit_name", "window_start", "percent", unique=True
        ),
        Index("ix_usage_alerts_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    )

    alert: Mapped[str] = mapped_column(primary_key=True)
    webhook: Mapped[str]
    client: Mapped[str]
    plan: Mapped[str]
    limit_name: Mapped[str]
    window_start: Mapped[datetime]
    percent: Mapped[int]
    used: Mapped[int]
    limit: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    attempts: Mapped[int]
    due_at: Mapped[datetime | None]
    """When to try next; null once it was delivered or given up."""
    delivered_at: Mapped[datetime | None]
    error: Mapped[str | None]
