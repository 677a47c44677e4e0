"""The import of keys: a part of its lines at a time, each key by its hash alone."""

from collections.abc import Callable, Sequence

from control_plane.clients.imports import Numbered, Store, Tally
from control_plane.clients.models import KeyRow
from control_plane.clients.repository import clients
from control_plane.credentials.keys import repository
from control_plane.credentials.keys.schemas import KeyImport
from control_plane.credentials.keys.service import key_document, looks_random, make_room, view
from control_plane.errors import FieldError
from control_plane.orm import shown_prefix
from control_plane.publishing.writer import ConfigWrite
from tidegate.contract.credentials import secret_sha256


def store_keys(new_id: Callable[[], str]) -> Store:
    """How the keys of a part are taken in; ``new_id`` makes their ids."""

    async def store(write: ConfigWrite, part: Sequence[Numbered[KeyImport]], tally: Tally) -> None:
        hashes = [item.line.secret_sha256 or secret_sha256(item.line.secret or "") for item in part]
        await make_room(write, hashes)
        owners = await repository.owners(write.session, hashes)
        known = await clients.existing(write.session, {item.line.client for item in part})
        rows = []
        for (number, line), sha256 in zip(part, hashes, strict=True):
            fault = _key_fault(line, owners.get(sha256), known)
            if fault is not None:
                tally.refuse(number, [fault])
            elif sha256 in owners:
                tally.unchanged += 1
            else:
                owners[sha256] = line.client
                tally.made += 1
                rows.append(_row(line, sha256, new_id()))
        if rows:
            await put_keys(write, rows)

    return store


def _key_fault(line: KeyImport, owner: str | None, clients: set[str]) -> FieldError | None:
    if line.client not in clients:
        return FieldError("client", f"there is no client named {line.client}")
    if owner is not None and owner != line.client:
        return FieldError("secret" if line.secret else "secret_sha256", "is a key of another client already")
    if line.secret is not None and not looks_random(line.secret):
        return FieldError("secret", "does not look random: it needs at least 128 random bits")
    return None


def _row(line: KeyImport, sha256: str, key_id: str) -> KeyRow:
    prefix = None if line.secret is None else shown_prefix(line.secret)
    return KeyRow(
        key_id=key_id, client=line.client, sha256=sha256, prefix=prefix, name=line.name, expires_at=line.expires_at
    )


async def put_keys(write: ConfigWrite, rows: Sequence[KeyRow]) -> None:
    """Make these keys, of clients that there are."""
    created = await repository.put(write.session, rows)
    for row in rows:
        row.created_at = created[row.key_id]
        write.record("key", f"{row.client}/{row.key_id}", None, view(row))
        write.publish(key_document(row))
