"""The table of answers that may be asked for again."""

from datetime import datetime
from typing import Any

from sqlalchemy import SmallInteger, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.orm import Base


class ReplayRow(Base):
    """What a POST with an ``Idempotency-Key`` did. ``status`` is null where its answer was never stored.

    ``request_sha256`` covers method, path, query and body. ``made`` names what was made where the answer held a
    secret, which is not kept.
    """

    __tablename__ = "replays"

    author: Mapped[str] = mapped_column(primary_key=True)
    idempotency_key: Mapped[str] = mapped_column(primary_key=True)
    request_sha256: Mapped[str]
    status: Mapped[int | None] = mapped_column(SmallInteger)
    headers: Mapped[dict[str, str]]
    body: Mapped[str | None]
    made: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
