"""The table of tokens."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.orm import Base, KnownBySecret, shown_prefix


class Token(KnownBySecret, Base):
    """A token of an admin or a gateway; its secret exists only as a hash. Revoked ones stay as a record.

    ``role`` is ``scoped`` where ``scoped_grant`` says for which clients: versions that do not know it allow nothing.
    """

    __tablename__ = "tokens"
    __table_args__ = (
        CheckConstraint("role IN ('viewer', 'operator', 'admin', 'gateway', 'scoped')", name="role"),
        CheckConstraint("(role = 'scoped') = (scoped_grant IS NOT NULL)", name="scoped_grant"),
        Index("uq_tokens_live_name", "name", unique=True, postgresql_where=text("revoked_at IS NULL")),
    )

    token_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    role: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    previous_sha256: Mapped[str | None] = mapped_column(unique=True)
    previous_expires_at: Mapped[datetime | None]
    prefix: Mapped[str | None]
    dialect: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    scoped_grant: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))

    def take_secret(self, secret: str, keep_until: datetime | None) -> None:
        """Take a new secret, and keep how it begins."""
        super().take_secret(secret, keep_until)
        self.prefix = shown_prefix(secret)
