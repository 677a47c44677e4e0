"""The shapes of a switch."""

from datetime import datetime

from control_plane.web.fields import Body, Expiry, Text, View
from tidegate.contract.blocks import SwitchMode


class SwitchReplace(Body):
    """`shadow`: limits are counted and reported, and stop nobody. `enforce`: even those that are marked shadow do."""

    mode: SwitchMode
    expires_at: Expiry | None = None
    """Nodes end it by themselves at this instant."""
    reason: Text | None = None


class SwitchView(View):
    """A switch as it is."""

    target: str
    """`*` for all limits, else `plan/limit`, or `_/limit` outside plans; the switch of one limit is stronger."""
    mode: SwitchMode
    expires_at: datetime | None
    reason: str | None
    set_at: datetime
