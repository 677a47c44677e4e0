"""The tables of reporters."""

from datetime import datetime

from sqlalchemy import ForeignKey, func
from sqlalchemy.orm import Mapped, mapped_column, relationship

from control_plane.orm import Base, KnownBySecret, shown_prefix


class ReporterBackend(Base):
    """A reporter speaks for this backend."""

    __tablename__ = "reporter_backends"

    reporter: Mapped[str] = mapped_column(ForeignKey("reporters.reporter", ondelete="CASCADE"), primary_key=True)
    backend: Mapped[str] = mapped_column(
        ForeignKey("backends.backend", ondelete="RESTRICT"), primary_key=True, index=True
    )


class ReporterRow(KnownBySecret, Base):
    """A reporter; its credential exists only as a hash."""

    __tablename__ = "reporters"

    reporter: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(unique=True)
    prefix: Mapped[str]
    previous_sha256: Mapped[str | None]
    previous_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    backends: Mapped[list[ReporterBackend]] = relationship(
        cascade="all, delete-orphan", lazy="selectin", order_by=ReporterBackend.backend
    )

    def take_secret(self, secret: str, keep_until: datetime | None) -> None:
        """Take a new secret, and keep how it begins."""
        super().take_secret(secret, keep_until)
        self.prefix = shown_prefix(secret)
