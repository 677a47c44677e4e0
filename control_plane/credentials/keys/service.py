"""What can be done with keys: made or taken in, shown without their secret, revoked."""

from collections.abc import Sequence

from control_plane.clients import repository
from control_plane.clients.models import KeyRow
from control_plane.credentials.keys.schemas import KeyCreate, KeyCreated, KeyRotate, KeyView
from control_plane.credentials.rotation import Rotation
from control_plane.errors import ConflictError, FieldError, InvalidError, NotFoundError
from control_plane.orm import shown_prefix
from control_plane.publishing.repository import DocumentKey
from control_plane.publishing.writer import ConfigWrite
from control_plane.web.etags import Preconditions
from tidegate.contract.config import ApiKey
from tidegate.contract.credentials import make_credential, secret_sha256

MIN_DISTINCT_CHARACTERS = 8


def view(row: KeyRow) -> KeyView:
    """Show a key."""
    return KeyView(
        key_id=row.key_id,
        client=row.client,
        name=row.name,
        prefix=row.prefix,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used=row.last_used_at,
    )


def key_document(row: KeyRow) -> ApiKey:
    """The key by the hash of its secret."""
    expires_at = None if row.expires_at is None else row.expires_at.timestamp()
    return ApiKey(sha256=row.sha256, key_id=row.key_id, client=row.client, expires_at=expires_at)


def looks_random(secret: str) -> bool:
    """Whether a secret is not plainly made up of a few characters."""
    return len(set(secret)) >= MIN_DISTINCT_CHARACTERS


async def create(write: ConfigWrite, client: str, body: KeyCreate, *, key_id: str, random: bytes) -> KeyCreated:
    """Give ``client`` a key: a secret made of 32 random bytes, or the one that the body brings."""
    made = make_credential("client_key", random) if body.secret is None and body.secret_sha256 is None else None
    secret = made or body.secret
    if body.secret is not None and not looks_random(body.secret):
        raise InvalidError([FieldError("secret", "does not look random: it needs at least 128 random bits")])
    sha256 = body.secret_sha256 or secret_sha256(secret or "")
    await make_room(write, [sha256])
    if await repository.key_by_secret(write.session, sha256) is not None:
        raise ConflictError("This secret is a key already.")
    row = KeyRow(
        key_id=key_id,
        client=client,
        sha256=sha256,
        prefix=None if secret is None else shown_prefix(secret),
        name=body.name,
        expires_at=body.expires_at,
    )
    write.session.add(row)
    await write.session.flush()
    write.record("key", f"{client}/{key_id}", None, view(row))
    write.publish(key_document(row))
    return KeyCreated(
        key_id=key_id, secret=made, client=client, name=row.name, prefix=row.prefix, expires_at=row.expires_at
    )


async def rotate(
    write: ConfigWrite,
    client: str,
    key_id: str,
    body: KeyRotate,
    preconditions: Preconditions,
    *,
    new_key_id: str,
    rotation: Rotation,
) -> KeyCreated:
    """Make a key in place of ``key_id``, which works as long as the rotation says or is revoked at once."""
    row = await _existing(write, client, key_id, preconditions)
    created = await create(
        write,
        client,
        KeyCreate.model_construct(
            name=body.name or row.name, expires_at=body.expires_at, secret=None, secret_sha256=None
        ),
        key_id=new_key_id,
        random=rotation.random,
    )
    if rotation.keep_until is None:
        await take_away(write, row)
        return created
    before = view(row)
    row.expires_at = rotation.keep_until if row.expires_at is None else min(rotation.keep_until, row.expires_at)
    write.publish(key_document(row))
    write.record("key", f"{client}/{key_id}", before, view(row), "rotate")
    return created


async def revoke(write: ConfigWrite, client: str, key_id: str, preconditions: Preconditions) -> None:
    """Delete a key; nodes refuse it from this revision on."""
    await take_away(write, await _existing(write, client, key_id, preconditions))


async def _existing(write: ConfigWrite, client: str, key_id: str, preconditions: Preconditions) -> KeyRow:
    row = await repository.keys_of(client).find(write.session, key_id)
    if row is None:
        raise missing(client, key_id)
    preconditions.check(view(row))
    return row


async def take_away(write: ConfigWrite, row: KeyRow) -> None:
    """Delete a key; nodes refuse it from this revision on."""
    await write.session.delete(row)
    write.record("key", f"{row.client}/{row.key_id}", view(row), None, "revoke")
    write.withdraw(DocumentKey("key", row.sha256))


async def make_room(write: ConfigWrite, hashes: Sequence[str]) -> None:
    """Delete those of these keys that have expired: their job may not have come yet."""
    for row in await repository.ended_of(write.session, hashes):
        await take_away(write, row)
    await write.session.flush()


def missing(client: str, key_id: str) -> NotFoundError:
    """The error for a key that the client does not have."""
    return NotFoundError(f"The client {client} has no key {key_id}.")
