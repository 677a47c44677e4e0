"""The tables of backends and endpoints."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Sequence, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.orm import Base

RULE_IDS = Sequence("limit_rule_ids", metadata=Base.metadata)
"""Names of stored counts, for limits and for capacities alike."""


class BackendRow(Base):
    """What serves endpoints. ``capacity_rule_id`` and ``capacity_open_rule_id`` name stored counts, once there are any.

    ``pulls``: objects of ``server``, ``signal``, ``query``.
    """

    __tablename__ = "backends"

    backend: Mapped[str] = mapped_column(primary_key=True)
    capacity_limit: Mapped[int | None]
    capacity_window_us: Mapped[int | None]
    capacity_burst: Mapped[int | None]
    capacity_rule_id: Mapped[int | None]
    capacity_open_rule_id: Mapped[int | None]
    adaptive: Mapped[str | None] = mapped_column(
        ForeignKey("adaptive_policies.policy", ondelete="RESTRICT"), index=True
    )
    pulls: Mapped[list[dict[str, Any]]] = mapped_column(server_default=text("'[]'::jsonb"))
    manual_factor: Mapped[float | None]
    manual_expires_at: Mapped[datetime | None]
    manual_reason: Mapped[str | None]


class BackendLoadRow(Base):
    """A region's newest report on a backend; ``state`` is a ``tidegate.contract.load.BackendLoad``."""

    __tablename__ = "backend_loads"

    region: Mapped[str] = mapped_column(ForeignKey("regions.region", ondelete="CASCADE"), primary_key=True)
    backend: Mapped[str] = mapped_column(
        ForeignKey("backends.backend", ondelete="CASCADE"), primary_key=True, index=True
    )
    node: Mapped[str]
    state: Mapped[dict[str, Any]] = mapped_column(JSONB)
    reported_at: Mapped[datetime] = mapped_column(server_default=func.now())


class EndpointRow(Base):
    """A route; ``shape`` (see ``tidegate.contract.config.route_shape``) is what no two may share."""

    __tablename__ = "endpoints"

    endpoint: Mapped[str] = mapped_column(primary_key=True)
    method: Mapped[str]
    path: Mapped[str]
    shape: Mapped[str] = mapped_column(unique=True)
    backend: Mapped[str | None] = mapped_column(ForeignKey("backends.backend", ondelete="RESTRICT"), index=True)
    cost: Mapped[int]
    exempt: Mapped[bool]
