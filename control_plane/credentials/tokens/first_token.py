"""The first admin token: from the settings, and only while none exists."""

from control_plane.audit import trail
from control_plane.audit.trail import Origin
from control_plane.credentials.tokens import repository
from control_plane.credentials.tokens.models import Token
from control_plane.database import Database
from tidegate.contract.credentials import secret_sha256

FIRST_TOKEN_ID = "tok_first"  # noqa: S105  an id, not a secret
FIRST_NAME = "first-admin"
AUTHOR, REASON = "bootstrap", "the first admin token, from the settings"


async def ensure_first_admin(database: Database, secret: str) -> bool:
    """Store ``secret`` (hashed) as the first admin token unless there is one; says whether it did."""
    async with database.transaction() as session:
        # two replicas may start at once
        await repository.one_at_a_time(session)
        if await repository.any_admin(session):
            return False
        session.add(Token(token_id=FIRST_TOKEN_ID, name=FIRST_NAME, role="admin", sha256=secret_sha256(secret)))
        made = trail.Event("create", "token", FIRST_TOKEN_ID, None, {"name": FIRST_NAME, "role": "admin"})
        await trail.store(session, [made], author=AUTHOR, reason=REASON, origin=Origin(), revision=0)
        return True
