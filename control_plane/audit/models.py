"""The table of the audit log. Triggers keep it append-only."""

from datetime import datetime
from typing import Any

from sqlalchemy import Identity, Index, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.orm import Base

_OBJECT = JSONB(none_as_null=True)


class AuditRow(Base):
    """One write. ``before`` and ``after`` are what the API shows of the resource, null where it did not exist."""

    __tablename__ = "audit_log"
    __table_args__ = (
        Index("ix_audit_log_resource", "resource", "name", "id"),
        Index("ix_audit_log_author", "author", "id"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    author: Mapped[str]
    role: Mapped[str | None]
    action: Mapped[str]
    resource: Mapped[str]
    name: Mapped[str]
    revision: Mapped[int] = mapped_column(index=True)
    reason: Mapped[str | None]
    request_id: Mapped[str | None]
    address: Mapped[str | None]
    before: Mapped[dict[str, Any] | None] = mapped_column(_OBJECT)
    after: Mapped[dict[str, Any] | None] = mapped_column(_OBJECT)
