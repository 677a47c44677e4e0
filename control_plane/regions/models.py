"""The table of regions."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from control_plane.orm import Base


class RegionRow(Base):
    """A region; its credential exists only as a hash and as the public key that follows from it."""

    __tablename__ = "regions"

    region: Mapped[str] = mapped_column(primary_key=True)
    peer_url: Mapped[str | None]
    public_key: Mapped[str | None]
    credential_sha256: Mapped[str | None] = mapped_column(unique=True)
    previous_public_key: Mapped[str | None]
    """After a rotation the credential before it works until ``previous_expires_at``."""
    previous_credential_sha256: Mapped[str | None] = mapped_column(unique=True)
    previous_expires_at: Mapped[datetime | None]
