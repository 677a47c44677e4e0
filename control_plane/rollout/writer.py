"""The one place that commits: a write changes tables and documents together, and makes at most one revision."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from pydantic import BaseModel

from contract.config import Document
from contract.digest import bucket_digest, root_digest
from control_plane.audit import trail
from control_plane.audit.trail import Origin
from control_plane.database import Database
from control_plane.errors import ConflictError, UnavailableError
from control_plane.rollout import repository
from control_plane.rollout.documents import ChangedDocument, DocumentKey, canonical, key_of, shown
from control_plane.rollout.models import ConfigHead, Revision
from control_plane.rollout.signing import Signer

TURN_WAIT_S = 10.0
NOWHERE = Origin()


Guard = Callable[["ConfigWrite", DocumentKey, str | None, str], Awaitable[str]]
"""Asked about every plan and limit that a write publishes: (write, key, what nodes have, what is wanted) -> what nodes
get now."""
GUARDED = frozenset({"plan", "limit"})


class ConfigWrite:
    """An open write: services change tables through ``session`` and say which documents follow from that.

    ``revision`` is the head's while the block runs, and afterwards the one that this write made (or left).
    """

    def __init__(
        self,
        session: AsyncSession,
        head: ConfigHead,
        author: str,
        reason: str | None,
        origin: Origin,
        guard: Guard | None = None,
    ) -> None:
        self.session = session
        self.revision = head.revision
        self.next_revision = head.revision + 1
        """The number that this write's revision has, if it makes one."""
        self.author = author
        self.reason = reason
        self._head = head
        self._origin = origin
        self._guard = guard
        self._documents: dict[DocumentKey, str | None] = {}
        self._events: list[trail.Event] = []
        self._row_changed = False

    def publish(self, document: Document) -> None:
        """From this revision on, nodes have ``document``."""
        self._documents[key_of(document)] = canonical(document)

    def withdraw(self, key: DocumentKey) -> None:
        """From this revision on, nodes no longer have the document."""
        self._documents[key] = None

    def record(
        self,
        resource: str,
        name: str,
        before: BaseModel | None,
        after: BaseModel | None,
        action: trail.Action | None = None,
    ) -> None:
        """Put into the audit log what became of a resource, by its views; nothing if they do not differ.

        A write that records nothing is recorded by its documents: none goes unseen.
        """
        if before == after and action is None:
            return
        self._row_changed = self._row_changed or (before is not None and after is not None)
        self._events.append(trail.event(action or trail.action_of(before, after), resource, name, before, after))

    async def finish(self, signer: Signer) -> None:
        """Make the revision if any document or anything of a resource differs, and store the audit log's entries."""
        changes = await self._changes()
        if changes or self._row_changed:
            await self._make_revision(changes, signer)
        events = self._events or [_event(change) for change in changes]
        await trail.store(
            self.session,
            events,
            author=self.author,
            reason=self.reason,
            origin=self._origin,
            revision=self.revision,
        )

    async def _changes(self) -> list[ChangedDocument]:
        before = await repository.bodies(self.session, self._documents)
        if self._guard is not None:
            for key, after in self._documents.items():
                if after is not None and key.kind in GUARDED:
                    self._documents[key] = await self._guard(self, key, before.get(key), after)
        return [
            ChangedDocument(key, before.get(key), after)
            for key, after in self._documents.items()
            if before.get(key) != after
        ]

    async def _make_revision(self, changes: list[ChangedDocument], signer: Signer) -> None:
        self.revision = self._head.revision + 1
        if changes:
            await self._store(changes)
        digest = root_digest(await repository.bucket_digests(self.session))
        self._head.revision, self._head.digest = self.revision, digest
        self.session.add(
            Revision(
                number=self.revision,
                author=self.author,
                reason=self.reason,
                digest=digest,
                signature=signer.sign(self.revision, digest),
                changes=[change.as_record() for change in changes],
            )
        )
        await self.session.flush()
        await repository.notify_revision(self.session, self.revision)

    async def _store(self, changes: list[ChangedDocument]) -> None:
        await repository.store_documents(self.session, changes, self.revision)
        hashes = await repository.hashes_by_bucket(self.session, {change.key.bucket for change in changes})
        touched = {bucket: bucket_digest(found) for bucket, found in hashes.items()}
        await repository.store_buckets(self.session, touched)


class ConfigWriter:
    """Opens writes, one after the other: by a lock in this process, so that waiting writers hold no connection, and
    by the head's row across replicas.
    """

    def __init__(self, database: Database, signer: Signer, guard: Guard | None = None) -> None:
        self._database = database
        self._signer = signer
        self._guard = guard
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def begin(self, author: str, reason: str | None, origin: Origin = NOWHERE) -> AsyncIterator[ConfigWrite]:
        """A write that is committed, with its revision, when the block ends without an error."""
        async with self._my_turn(), self._database.transaction() as session:
            write = ConfigWrite(session, await repository.lock_head(session), author, reason, origin, self._guard)
            try:
                yield write
                await session.flush()
                await write.finish(self._signer)
            except IntegrityError as error:
                raise _conflict(error) from error

    @asynccontextmanager
    async def _my_turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(TURN_WAIT_S):
                await self._turn.acquire()
        except TimeoutError:
            raise UnavailableError("Too many writes are waiting.") from None
        try:
            yield
        finally:
            self._turn.release()


def _event(change: ChangedDocument) -> trail.Event:
    record = shown(change.as_record())
    before, after = record["before"], record["after"]
    return trail.Event(trail.action_of(before, after), record["kind"], record["id"], before, after)


def _conflict(error: IntegrityError) -> ConflictError:
    cause = error.orig.__cause__ if error.orig is not None else None
    table = str(getattr(cause, "table_name", None) or "something else").replace("_", " ")
    if getattr(cause, "sqlstate", None) == "23503":
        return ConflictError(f"It is still used by: {table}.")
    return ConflictError(f"It contradicts what exists in: {table}.")
