"""The table of plans."""

from sqlalchemy.orm import Mapped, mapped_column, relationship

from control_plane.limits.models import LimitRow
from control_plane.orm import Base


class PlanRow(Base):
    """A plan and its limits, in the order written."""

    __tablename__ = "plans"

    plan: Mapped[str] = mapped_column(primary_key=True)
    priority: Mapped[int]
    limits: Mapped[list[LimitRow]] = relationship(
        cascade="all, delete-orphan", lazy="selectin", order_by=(LimitRow.position, LimitRow.id)
    )
