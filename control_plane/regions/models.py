"""The table of regions."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from control_plane.orm import Base, KnownBySecret
from tidegate.contract.credentials import region_public_key, secret_sha256


class RegionRow(KnownBySecret, Base):
    """A region; its credential exists only as a hash and as the public key that follows from it."""

    __tablename__ = "regions"

    region: Mapped[str] = mapped_column(primary_key=True)
    peer_url: Mapped[str | None]
    public_key: Mapped[str | None]
    sha256: Mapped[str | None] = mapped_column("credential_sha256", unique=True)
    previous_public_key: Mapped[str | None]
    previous_sha256: Mapped[str | None] = mapped_column("previous_credential_sha256", unique=True)
    previous_expires_at: Mapped[datetime | None]

    def take_secret(self, secret: str, keep_until: datetime | None) -> None:
        """As every row does, and keep the public key that follows. The secret that it has changes nothing."""
        if secret_sha256(secret) == self.sha256:
            return
        super().take_secret(secret, keep_until)
        self.previous_public_key = self.public_key if self.previous_sha256 is not None else None
        self.public_key = region_public_key(secret)
