"""The table of the console's sessions."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.orm import Base


class ConsoleSession(Base):
    """A browser that is logged in (``session``), or a link that logs in once (``link``); secrets exist as hashes.

    ``token_sha256`` is the hash of the secret that was shown: once the token has another one, the session ends.
    A session that an OpenID Connect provider vouched for has a ``person`` instead of a token.
    """

    __tablename__ = "console_sessions"
    __table_args__ = (
        CheckConstraint("kind IN ('session', 'link')", name="kind"),
        CheckConstraint("(token_id IS NULL) = (token_sha256 IS NULL)", name="token"),
        CheckConstraint("(token_id IS NULL) = (person IS NOT NULL)", name="person"),
    )

    sha256: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    token_id: Mapped[str | None] = mapped_column(ForeignKey("tokens.token_id", ondelete="CASCADE"), index=True)
    token_sha256: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    person: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
