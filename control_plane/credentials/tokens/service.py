"""What can be done with tokens."""

from datetime import datetime
from typing import Any, cast

from control_plane.access.principals import Grant, ScopedRole
from control_plane.audit import repository as audit
from control_plane.audit.repository import Origin
from control_plane.credentials.rotation import Rotation
from control_plane.credentials.rotation import rotate as rotate_secret
from control_plane.credentials.tokens import repository
from control_plane.credentials.tokens.models import Token
from control_plane.credentials.tokens.schemas import Dialect, TokenCreate, TokenCreated, TokenView
from control_plane.database import Database
from control_plane.errors import ConflictError, FieldError, InvalidError, NotFoundError
from control_plane.limits.service import Plans
from control_plane.orm import has_ended, present
from control_plane.publishing.repository import DocumentKey
from control_plane.publishing.writer import ConfigWrite
from control_plane.web.etags import Preconditions
from tidegate.contract.config import Gateway
from tidegate.contract.credentials import CredentialKind, make_credential, secret_sha256

FIRST_TOKEN_ID = "tok_first"  # noqa: S105  an id, not a secret
FIRST_NAME = "first-admin"
AUTHOR, REASON = "bootstrap", "the first admin token, from the settings"


def view(row: Token) -> TokenView:
    """Show a token."""
    return TokenView(
        token_id=row.token_id,
        name=row.name,
        **_role_of(row),
        dialect=cast("Dialect | None", row.dialect),
        prefix=row.prefix,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used=row.last_used_at,
        previous_expires_at=row.previous_expires_at,
    )


def _role_of(row: Token) -> dict[str, Any]:
    """The role, and for which clients it holds."""
    if row.scoped_grant is None:
        return {"role": row.role, "plans": [], "client_prefixes": []}
    return Grant.of(row.scoped_grant).stored()


async def create(write: ConfigWrite, body: TokenCreate, *, token_id: str, random: bytes) -> TokenCreated:
    """Issue a token from 32 random bytes; a gateway's goes to the nodes as its hash."""
    namesake = await repository.live_by_name.find(write.session, body.name)
    if namesake is not None:
        now = await present(write.session)
        if not has_ended(namesake.expires_at, now):
            raise ConflictError(f"There is a token named {body.name} already.")
        expire(write, namesake, now)  # its job may not have come yet
        await write.session.flush()
    known = await Plans.rows.existing(write.session, body.plans)
    unknown = [(place, plan) for place, plan in enumerate(body.plans) if plan not in known]
    if unknown:
        raise InvalidError(FieldError(f"plans[{place}]", f"there is no plan named {plan}") for place, plan in unknown)
    secret = make_credential(_kind(body.role), random)
    row = Token(token_id=token_id, name=body.name, role=body.role, dialect=body.dialect, expires_at=body.expires_at)
    if body.plans or body.client_prefixes:
        grant = Grant(cast("ScopedRole", body.role), tuple(body.plans), tuple(body.client_prefixes))
        row.role, row.scoped_grant = "scoped", grant.stored()
    row.take_secret(secret, None)
    write.session.add(row)
    await write.session.flush()
    write.record("token", token_id, None, view(row))
    _publish(write, row)
    return _created(row, secret)


async def rotate(write: ConfigWrite, token_id: str, rotation: Rotation, preconditions: Preconditions) -> TokenCreated:
    """Give a token another secret; the one before it works as long as the rotation says."""
    row = await repository.live.find(write.session, token_id)
    if row is None or has_ended(row.expires_at, await present(write.session)):
        raise missing(token_id)
    secret = rotate_secret(
        write,
        row,
        _kind(row.role),
        rotation,
        preconditions,
        resource="token",
        name=token_id,
        view=view,
        publish=_publish,
    )
    return _created(row, secret)


def _kind(role: str) -> CredentialKind:
    return "gateway" if role == "gateway" else "admin"


def _publish(write: ConfigWrite, row: Token) -> None:
    """Nodes get the hash of a gateway's secret, and for an overlap that of the one before it; none of an admin's."""
    if row.role != "gateway":
        return
    ends = None if row.expires_at is None else row.expires_at.timestamp()
    write.publish(Gateway(sha256=row.sha256, gateway=row.name, dialect=row.dialect, expires_at=ends))
    key = _previous(row)
    if row.previous_sha256 is None or row.previous_expires_at is None:
        write.withdraw(key)
        return
    until = row.previous_expires_at.timestamp()
    ends = until if ends is None else min(until, ends)
    write.publish(Gateway(sha256=row.previous_sha256, gateway=row.name, dialect=row.dialect, expires_at=ends), key)


def forget_previous(write: ConfigWrite, row: Token) -> None:
    """The secret before a rotation works no more."""
    row.previous_sha256 = row.previous_expires_at = None
    if row.role == "gateway":
        write.withdraw(_previous(row))


def expire(write: ConfigWrite, row: Token, now: datetime) -> None:
    """Revoke a token that has expired."""
    before = view(row)
    forget_previous(write, row)
    row.revoked_at = now
    if row.role == "gateway":
        write.withdraw(DocumentKey("gateway", row.name))
    write.record("token", row.token_id, before, None, "revoke")


def _previous(row: Token) -> DocumentKey:
    # no name holds a slash
    return DocumentKey("gateway", f"{row.name}/previous")


def _created(row: Token, secret: str) -> TokenCreated:
    return TokenCreated(
        token_id=row.token_id,
        secret=secret,
        name=row.name,
        **_role_of(row),
        dialect=cast("Dialect | None", row.dialect),
        expires_at=row.expires_at,
    )


async def revoke(write: ConfigWrite, token_id: str, preconditions: Preconditions, now: datetime) -> None:
    """End a token; the last admin token that does not expire stays, since nothing could make another."""
    row = await repository.live.find(write.session, token_id)
    if row is None:
        raise missing(token_id)
    preconditions.check(view(row))
    if row.role == "admin" and not await repository.other_lasting_admin(write.session, token_id):
        raise ConflictError("This is the last admin token that does not expire: make another first.")
    row.revoked_at = now
    write.record("token", token_id, view(row), None, "revoke")
    if row.role == "gateway":
        write.withdraw(DocumentKey("gateway", row.name))
        write.withdraw(_previous(row))


def missing(token_id: str) -> NotFoundError:
    """The error for a token that is not in force."""
    return NotFoundError(f"There is no token {token_id}.")


async def ensure_first_admin(database: Database, secret: str) -> bool:
    """Store ``secret`` (hashed) as the first admin token unless there is one. Returns whether it did."""
    async with database.transaction() as session:
        # two replicas may start at once
        await repository.one_at_a_time(session)
        if await repository.any_admin(session):
            return False
        session.add(Token(token_id=FIRST_TOKEN_ID, name=FIRST_NAME, role="admin", sha256=secret_sha256(secret)))
        made = audit.Event("create", "token", FIRST_TOKEN_ID, None, {"name": FIRST_NAME, "role": "admin"})
        await audit.store(session, [made], author=AUTHOR, reason=REASON, origin=Origin(), revision=0)
        return True
