"""The table of adaptive policies."""

from typing import Any

from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.orm import Base


class AdaptivePolicyRow(Base):
    """A policy; ``settings`` are all members of ``schemas.PolicyFields``, which alone says what they may be."""

    __tablename__ = "adaptive_policies"

    policy: Mapped[str] = mapped_column(primary_key=True)
    settings: Mapped[dict[str, Any]] = mapped_column(JSONB)
