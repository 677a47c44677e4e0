"""The one place that commits: a write changes tables and documents together, and makes at most one revision."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

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
from control_plane.rollout.staging import Stager

TURN_WAIT_S = 10.0
NOWHERE = Origin()


class Guard(Protocol):
    """Stands between plans and limits as they are wanted, and what nodes get."""

    async def foreseen(
        self, write: "ConfigWrite", before: Mapping[DocumentKey, str], after: Mapping[DocumentKey, str | None]
    ) -> None:
        """All that this write wants to change, before any of it is shaped."""

    async def shaped(self, write: "ConfigWrite", key: DocumentKey, before: str | None, after: str) -> str:
        """The document to publish in place of ``after``, where nodes have ``before``."""

    async def restamped(self, write: "ConfigWrite", keys: Collection[DocumentKey]) -> None:
        """Nodes get these documents with this write's revision: what they said before of them is of no use."""


Follower = Callable[["ConfigWrite", Collection[ChangedDocument]], Awaitable[None]]
"""Does what follows from the documents of a write: it publishes, withdraws and records in the same one."""
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
        guard: "Guard | None" = None,
        stager: "Stager | None" = None,
        *,
        signer: Signer,
        followers: Sequence[Follower] = (),
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
        self._stager = stager or Stager(session, head, heartbeat_s=1.0, immediate=True)
        self._documents: dict[DocumentKey, str | None] = {}
        self._events: list[trail.Event] = []
        self._signer = signer
        self._followers = followers
        self._complete = False

    def publish(self, document: Document, key: DocumentKey | None = None) -> None:
        """From this revision on, nodes have ``document``, under its own name unless ``key`` says another."""
        self._documents[key or key_of(document)] = canonical(document)

    @property
    def stager(self) -> Stager:
        """Where this write's revision goes first."""
        return self._stager

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
        self._events.append(trail.event(action or trail.action_of(before, after), resource, name, before, after))

    async def complete(self) -> None:
        """Make the revision if any document or anything of a resource differs, and store the audit log's entries.

        The block's end does it. Whoever answers with what only follows from the revision does it before, and from then
        on only reads.
        """
        if self._complete:
            return
        self._complete = True
        await self.session.flush()
        changes = await self._changes()
        for follow in self._followers:
            changes = await self._followed(follow, changes)
        if changes or self._events or self._stager.has_step:
            await self._make_revision(changes)
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
            await self._guard.foreseen(self, before, self._documents)
            for key, after in list(self._documents.items()):
                if after is not None and key.kind in GUARDED:
                    self._documents[key] = await self._guard.shaped(self, key, before.get(key), after)
        return [
            ChangedDocument(key, before.get(key), after)
            for key, after in self._documents.items()
            if before.get(key) != after
        ]

    async def _followed(self, follow: Follower, changes: list[ChangedDocument]) -> list[ChangedDocument]:
        self._documents = {}
        await follow(self, changes)
        await self.session.flush()
        following = await self._changes()
        return [change for change in changes if change.key not in self._documents] + following

    async def _make_revision(self, changes: list[ChangedDocument]) -> None:
        self.revision = self.next_revision
        await self._stager.prepare(changes, self.revision)
        if changes:
            await self._store(changes)
        digest = root_digest(await repository.bucket_digests(self.session))
        stable_digest = await self._stager.step(changes, repository.Head(self.revision, digest))
        self._head.revision, self._head.digest = self.revision, digest
        if self._guard is not None and self._stager.restamped:
            await self._guard.restamped(self, self._stager.restamped)
        self.session.add(
            Revision(
                number=self.revision,
                author=self.author,
                reason=self.reason,
                digest=digest,
                stable_digest=stable_digest,
                signature=self._signer.sign(self.revision, digest),
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

    def __init__(
        self,
        database: Database,
        signer: Signer,
        guard: Guard | None = None,
        *,
        followers: Sequence[Follower] = (),
        heartbeat_s: float = 5.0,
    ) -> None:
        self._database = database
        self._signer = signer
        self._guard = guard
        self._followers = followers
        self._heartbeat_s = heartbeat_s
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def begin(
        self, author: str, reason: str | None, origin: Origin = NOWHERE, *, immediate: bool = False
    ) -> AsyncIterator[ConfigWrite]:
        """A write that is committed, with its revision, when the block ends without an error.

        ``immediate``: to every node at once, whatever the policy of roll-outs says.
        """
        async with self._my_turn(), self._database.transaction() as session:
            head = await repository.lock_head(session)
            stager = Stager(session, head, heartbeat_s=self._heartbeat_s, immediate=immediate)
            write = ConfigWrite(
                session,
                head,
                author,
                reason,
                origin,
                self._guard,
                stager,
                signer=self._signer,
                followers=self._followers,
            )
            try:
                yield write
                await write.complete()
            except IntegrityError as error:
                raise conflict_of(error) from error

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
    # not a view: only written where no service said what the write means
    return trail.Event(trail.action_of(before, after), f"{record['kind']} document", record["id"], before, after)


def conflict_of(error: IntegrityError) -> ConflictError:
    """What a constraint of the database says, in words for the caller."""
    cause = error.orig.__cause__ if error.orig is not None else None
    table = str(getattr(cause, "table_name", None) or "something else").replace("_", " ")
    if getattr(cause, "sqlstate", None) in {"23503", "23001"}:  # RESTRICT has a code of its own since Postgres 18
        return ConflictError(f"It is still used by: {table}.")
    return ConflictError(f"It contradicts what exists in: {table}.")
