"""The tables of clients, their keys and overrides."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, func
from sqlalchemy.orm import Mapped, mapped_column, relationship

from control_plane.orm import Base


class OverrideRow(Base):
    """A client's own figures for one limit of its plan; from ``expires_at`` on ``then_...``, or the plan's."""

    __tablename__ = "overrides"

    client: Mapped[str] = mapped_column(ForeignKey("clients.client", ondelete="CASCADE"), primary_key=True)
    limit_name: Mapped[str] = mapped_column(primary_key=True)
    limit: Mapped[int]
    burst: Mapped[int | None]
    expires_at: Mapped[datetime | None]
    then_limit: Mapped[int | None]
    then_burst: Mapped[int | None]


class KeyRow(Base):
    """A client's key: the hash of its secret, and its first characters for recognition."""

    __tablename__ = "keys"
    key_id: Mapped[str] = mapped_column(primary_key=True)
    client: Mapped[str] = mapped_column(ForeignKey("clients.client", ondelete="CASCADE"), index=True)
    sha256: Mapped[str] = mapped_column(unique=True)
    prefix: Mapped[str | None] = mapped_column(index=True)
    name: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class ClientRow(Base):
    """A client; ``generation`` rises with each reset."""

    __tablename__ = "clients"
    __table_args__ = (CheckConstraint("status IN ('active', 'suspended')", name="status"),)

    client: Mapped[str] = mapped_column(primary_key=True)
    plan: Mapped[str] = mapped_column(ForeignKey("plans.plan", ondelete="RESTRICT"), index=True)
    status: Mapped[str]
    attributes: Mapped[dict[str, str]]
    external_id: Mapped[str | None] = mapped_column(index=True)
    generation: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    overrides: Mapped[list[OverrideRow]] = relationship(
        cascade="all, delete-orphan", lazy="selectin", order_by=OverrideRow.limit_name
    )
