"""What a role may do, as templates ask it."""

from typing import NamedTuple

from control_plane.access.principals import AdminRole, Principal, require
from control_plane.errors import ForbiddenError


class May(NamedTuple):
    """``may("operator")``: whether the role is strong enough. No button is shown that would be refused."""

    role: str

    def __call__(self, role: AdminRole) -> bool:
        """Whether it is."""
        try:
            require(Principal("", self.role), role)  # type: ignore[arg-type]  # a role as it was stored
        except ForbiddenError:
            return False
        return True
