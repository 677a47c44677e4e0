"""The table of the console's sessions."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, func
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.orm import Base


class ConsoleSession(Base):
    """A browser that is logged in (``session``), or a link that logs in once (``link``); secrets exist as hashes.

    ``token_sha256`` is the hash of the secret that was shown: once the token has another one, the session ends.
    """

    __tablename__ = "console_sessions"
    __table_args__ = (CheckConstraint("kind IN ('session', 'link')", name="kind"),)

    sha256: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    token_id: Mapped[str] = mapped_column(ForeignKey("tokens.token_id", ondelete="CASCADE"), index=True)
    token_sha256: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
