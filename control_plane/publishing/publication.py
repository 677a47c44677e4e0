"""From a write to a revision: every step that follows from a change of tables, in its order, each once."""

from collections.abc import Awaitable, Callable, Sequence

from contract.digest import bucket_digest, root_digest
from control_plane.audit import trail
from control_plane.publishing import repository
from control_plane.publishing.documents import ChangedDocument, shown
from control_plane.publishing.models import Revision
from control_plane.publishing.signing import Signer
from control_plane.publishing.write import ConfigWrite

Derive = Callable[[ConfigWrite], Awaitable[None]]
"""Publishes, withdraws and records in a write what follows from the documents that services published."""


async def publish(write: ConfigWrite, signer: Signer, derive: Derive | None = None) -> None:
    """Derive documents, make the revision if anything differs, store the audit entries, read what is shown of it."""
    await write.session.flush()
    await write.placement.look()
    if derive is not None:
        await derive(write)
    changes = [change for change in await write.documents() if change.before != change.after]
    if changes or write.events or write.placement.has_step:
        await _make_revision(write, signer, changes)
    events = write.events or [_event(change) for change in changes]
    await trail.store(
        write.session,
        events,
        author=write.author,
        reason=write.reason,
        origin=write.origin,
        revision=write.revision,
    )
    for read, found in write.reads:
        found.set_result(await read(write.session))


async def _make_revision(write: ConfigWrite, signer: Signer, changes: Sequence[ChangedDocument]) -> None:
    session, placement, head = write.session, write.placement, write.head
    write.revision = write.next_revision
    await placement.prepare(changes, write.revision)
    if changes:
        await _store(write, changes)
    digest = root_digest(await repository.bucket_digests(session))
    stable_digest = await placement.step(changes, repository.Head(write.revision, digest))
    head.revision, head.digest = write.revision, digest
    session.add(
        Revision(
            number=write.revision,
            author=write.author,
            reason=write.reason,
            digest=digest,
            stable_digest=stable_digest,
            signature=signer.sign(write.revision, digest),
            changes=[change.as_record() for change in changes],
        )
    )
    await session.flush()
    await repository.notify_revision(session, write.revision)


async def _store(write: ConfigWrite, changes: Sequence[ChangedDocument]) -> None:
    await repository.store_documents(write.session, changes, write.revision)
    hashes = await repository.hashes_by_bucket(write.session, {change.key.bucket for change in changes})
    touched = {bucket: bucket_digest(found) for bucket, found in hashes.items()}
    await repository.store_buckets(write.session, touched)


def _event(change: ChangedDocument) -> trail.Event:
    record = shown(change.as_record())
    before, after = record["before"], record["after"]
    # not a view: only written where no service said what the write means
    return trail.Event(trail.action_of(before, after), f"{record['kind']} document", record["id"], before, after)
