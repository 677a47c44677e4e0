"""What the admin API shows of the audit log."""

from datetime import datetime
from typing import Any

from control_plane.web.fields import View


class AuditEntry(View):
    """One write: who, what, before, after, why, when, and from where. It never holds a secret or a hash of one."""

    id: int
    at: datetime
    author: str
    role: str | None
    action: str
    resource: str
    name: str
    revision: int
    reason: str | None
    request_id: str | None
    address: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
