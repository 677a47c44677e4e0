"""The tables of plans, and of limits in plans and outside."""

from sqlalchemy import ForeignKey, Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from control_plane.orm import Base

SPLIT_MODES = frozenset({"regional", "strict"})
"""Modes in which each region has a share of the limit."""


class LimitEndpoint(Base):
    """A limit applies to this endpoint."""

    __tablename__ = "limit_endpoints"

    limit_id: Mapped[int] = mapped_column(ForeignKey("limits.id", ondelete="CASCADE"), primary_key=True)
    endpoint: Mapped[str] = mapped_column(
        ForeignKey("endpoints.endpoint", ondelete="RESTRICT"), primary_key=True, index=True
    )


class LimitShare(Base):
    """A region's explicit share of a limit, as a fraction of the whole."""

    __tablename__ = "limit_shares"

    limit_id: Mapped[int] = mapped_column(ForeignKey("limits.id", ondelete="CASCADE"), primary_key=True)
    region: Mapped[str] = mapped_column(ForeignKey("regions.region", ondelete="RESTRICT"), primary_key=True, index=True)
    fraction: Mapped[float]


class LimitRow(Base):
    """A limit. ``rule_id`` names the stored counts: a new one starts afresh. ``plan`` null: outside plans."""

    __tablename__ = "limits"
    __table_args__ = (Index("uq_limits_plan_name", "plan", "name", unique=True, postgresql_nulls_not_distinct=True),)

    id: Mapped[int] = mapped_column(primary_key=True)
    rule_id: Mapped[int] = mapped_column(unique=True)
    plan: Mapped[str | None] = mapped_column(ForeignKey("plans.plan", ondelete="CASCADE"))
    name: Mapped[str]
    position: Mapped[int] = mapped_column(default=0)
    scope: Mapped[str]
    algorithm: Mapped[str]
    limit: Mapped[int]
    window_us: Mapped[int | None]
    calendar: Mapped[str | None]
    anchor_us: Mapped[int]
    burst: Mapped[int | None]
    match_methods: Mapped[list[str]]
    match_attributes: Mapped[dict[str, str]]
    mode: Mapped[str]
    on_store_failure: Mapped[str]
    shadow: Mapped[bool]
    priority: Mapped[int]
    adaptive: Mapped[str | None] = mapped_column(
        ForeignKey("adaptive_policies.policy", ondelete="RESTRICT"), index=True
    )
    headline: Mapped[bool]
    visible: Mapped[bool | None]
    auto_shares: Mapped[bool] = mapped_column(default=False)
    auto_fractions: Mapped[dict[str, float]] = mapped_column(JSONB, default=dict)
    """The regions' fractions as the rebalancer last left them."""

    match_endpoints: Mapped[list[LimitEndpoint]] = relationship(
        cascade="all, delete-orphan", lazy="selectin", order_by=LimitEndpoint.endpoint
    )
    shares: Mapped[list[LimitShare]] = relationship(
        cascade="all, delete-orphan", lazy="selectin", order_by=LimitShare.region
    )


class PlanRow(Base):
    """A plan and its limits, in the order written."""

    __tablename__ = "plans"

    plan: Mapped[str] = mapped_column(primary_key=True)
    priority: Mapped[int]
    limits: Mapped[list[LimitRow]] = relationship(
        cascade="all, delete-orphan", lazy="selectin", order_by=(LimitRow.position, LimitRow.id)
    )
