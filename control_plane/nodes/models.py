"""The tables of nodes: connections, applied revisions, decisions."""

from datetime import datetime

from sqlalchemy import CheckConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.orm import Base


class Node(Base):
    """A node, or an agent of its region (``role``), that once opened a stream.

    ``stream`` names the open one; it counts while ``last_seen`` is fresh.

    ``staged_revision`` is the newest stage of a roll-out that the node was sent, at ``staged_at``: null once applied.
    """

    __tablename__ = "nodes"
    __table_args__ = (CheckConstraint("role IN ('node', 'agent')", name="role"),)

    region: Mapped[str] = mapped_column(primary_key=True)
    node: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str] = mapped_column(server_default="node")
    version: Mapped[str] = mapped_column(default="")
    applied_revision: Mapped[int] = mapped_column(default=0)
    applied_at: Mapped[datetime | None]
    refused_revision: Mapped[int | None]
    refused_reason: Mapped[str | None]
    stream: Mapped[str | None] = mapped_column(index=True)
    opened_at: Mapped[datetime | None]
    staged_revision: Mapped[int | None]
    staged_at: Mapped[datetime | None]
    last_seen: Mapped[datetime] = mapped_column(server_default=func.now())


class NodeEffect(Base):
    """The instant (microseconds) from which a share cut is in force in a node's region, from its ACK."""

    __tablename__ = "node_effects"

    region: Mapped[str] = mapped_column(primary_key=True)
    node: Mapped[str] = mapped_column(primary_key=True)
    rule_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, index=True)
    revision: Mapped[int]
    from_us: Mapped[int]


class NodeReportRow(Base):
    """A node's decisions since its previous report."""

    __tablename__ = "node_reports"

    region: Mapped[str] = mapped_column(primary_key=True)
    node: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True, index=True)
    decisions: Mapped[int]
    denied: Mapped[int]
    degraded: Mapped[int]
