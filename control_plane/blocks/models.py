"""The table of blocks."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.orm import Base


class BlockRow(Base):
    """A block. Exactly one of ``client``, ``key_id``, ``network`` and ``endpoint`` is set."""

    __tablename__ = "blocks"
    __table_args__ = (
        CheckConstraint("num_nonnulls(client, key_id, network, endpoint) = 1", name="one_subject"),
        Index("ix_blocks_expires_at", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
    )

    block: Mapped[str] = mapped_column(primary_key=True)
    client: Mapped[str | None]
    key_id: Mapped[str | None]
    network: Mapped[str | None]
    endpoint: Mapped[str | None]
    reason: Mapped[str | None]
    reason_class: Mapped[str]
    expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
