"""The shapes of an enforcement override."""

from datetime import datetime

from control_plane.web.fields import Body, Expiry, Text, View
from tidegate.contract.blocks import EnforcementMode


class EnforcementReplace(Body):
    """`shadow`: limits are counted and reported, and stop nobody. `enforce`: even those that are marked shadow do."""

    mode: EnforcementMode
    expires_at: Expiry | None = None
    """Nodes end it by themselves at this instant."""
    reason: Text | None = None


class EnforcementView(View):
    """An enforcement override as it is."""

    target: str
    """`*` for all limits, else `plan/limit`, or `_/limit` outside plans; that of one limit is stronger."""
    mode: EnforcementMode
    expires_at: datetime | None
    reason: str | None
    set_at: datetime
