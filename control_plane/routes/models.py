"""The tables of backends and endpoints."""

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.orm import Base


class BackendRow(Base):
    """What serves endpoints."""

    __tablename__ = "backends"

    backend: Mapped[str] = mapped_column(primary_key=True)


class EndpointRow(Base):
    """A route; ``shape`` (see ``templates.route_shape``) is what no two may share."""

    __tablename__ = "endpoints"

    endpoint: Mapped[str] = mapped_column(primary_key=True)
    method: Mapped[str]
    path: Mapped[str]
    shape: Mapped[str] = mapped_column(unique=True)
    backend: Mapped[str | None] = mapped_column(ForeignKey("backends.backend", ondelete="RESTRICT"), index=True)
    cost: Mapped[int]
    exempt: Mapped[bool]
