"""What tables have in common whose rows are known by the hash of a secret."""

from datetime import datetime

from sqlalchemy.orm import Mapped

from tidegate.contract.credentials import secret_sha256

SHOWN_CHARACTERS = 8


def shown_prefix(secret: str) -> str:
    """How a secret begins, which is kept to know it by."""
    return secret[:SHOWN_CHARACTERS]


class KnownBySecret:
    """A row with the hash of its secret; after a rotation the one before works until ``previous_expires_at``."""

    sha256: Mapped[str | None]
    previous_sha256: Mapped[str | None]
    previous_expires_at: Mapped[datetime | None]

    def take_secret(self, secret: str, keep_until: datetime | None) -> None:
        """Be known by ``secret``; by the one before, if there was one, until ``keep_until`` (``None``: no longer)."""
        keeps = keep_until is not None and self.sha256 is not None
        self.previous_sha256 = self.sha256 if keeps else None
        self.previous_expires_at = keep_until if keeps else None
        self.sha256 = secret_sha256(secret)
