"""From an admin's write to its revision: tables and documents change together, and one place commits.

Read from top to bottom: what services do with an open write, how its revision is made, how writes take turns, and a
write over HTTP.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.access.principals import Caller
from control_plane.audit import repository as audit
from control_plane.audit.repository import Origin, without_secrets
from control_plane.database import Database
from control_plane.errors import ConflictError, UnavailableError
from control_plane.publishing import repository
from control_plane.publishing.models import STAGED_KINDS, ConfigHead, Revision
from control_plane.publishing.repository import ChangedDocument, DocumentKey, Signer, canonical, key_of, shown
from control_plane.replays.service import Replay, replay_of
from control_plane.web.etags import Preconditions, etag_of
from control_plane.web.fields import Reason
from control_plane.web.waiting import wanted_wait_s, wants_immediate
from tidegate.contract.config import Document, bucket_digest, root_digest

if TYPE_CHECKING:
    from control_plane.canary.placement import CanaryPlacement

TURN_WAIT_S = 10.0
TRIALS_AT_ONCE = 2
LOOK_EVERY_S = 0.25
"""Below Postgres' deadlock_timeout (1 s), so that a trial gives way before Postgres ends a write."""
LONG_WRITE_S = 1.0
NOWHERE = Origin()
Shown = TypeVar("Shown")
Derive = Callable[["ConfigWrite"], Awaitable[None]]
"""Publishes, withdraws and records in a write what follows from the documents that services published."""
MakePlacement = Callable[..., "CanaryPlacement"]
"""Makes the placement of a write that a roll-out holds back from some nodes."""


class ConfigWrite:
    """One write. Services change tables through ``session`` and publish the documents that follow.

    ``revision`` is the head's while the block runs, and afterwards the one that this write made (or left).
    """

    def __init__(
        self,
        session: AsyncSession,
        head: ConfigHead,
        make_placement: MakePlacement,
        *,
        author: str,
        reason: str | None = None,
        origin: Origin = NOWHERE,
        immediate: bool = False,
    ) -> None:
        self.session = session
        self.head = head
        self.immediate = immediate
        self._make_placement = make_placement
        self.revision = head.revision
        self.next_revision = head.revision + 1
        """The number of this write's revision, if it makes one."""
        self.author = author
        self.reason = reason
        self.origin = origin
        self.events: list[audit.Event] = []
        self.reads: list[tuple[Callable[[AsyncSession], Awaitable[Any]], asyncio.Future[Any]]] = []
        self._wanted: dict[DocumentKey, str | None] = {}
        self._before: dict[DocumentKey, str | None] = {}

    @property
    def staged(self) -> bool:
        """Whether a roll-out is under way."""
        return self.head.rollout is not None

    @functools.cached_property
    def placement(self) -> "CanaryPlacement":
        """Which nodes get this write's revision first."""
        return self._make_placement(self.session, self.head, immediate=self.immediate)

    @property
    def began(self) -> int | None:
        """The roll-out that this write began."""
        return self.head.rollout if self.head.rollout == self.next_revision else None

    def publish(self, document: Document, key: DocumentKey | None = None) -> None:
        """Publish ``document``, under its own name or under ``key``."""
        self._wanted[key or key_of(document)] = canonical(document)

    def withdraw(self, key: DocumentKey) -> None:
        """Withdraw a document from nodes."""
        self._wanted[key] = None

    async def documents(self) -> list[ChangedDocument]:
        """Every document of this write, as nodes have it and as it will be; some may be equal."""
        await self.session.flush()
        unread = [key for key in self._wanted if key not in self._before]
        stored = await repository.bodies(self.session, unread)
        self._before |= {key: stored.get(key) for key in unread}
        return [ChangedDocument(key, self._before[key], after) for key, after in self._wanted.items()]

    def record(
        self,
        resource: str,
        name: str,
        before: BaseModel | None,
        after: BaseModel | None,
        action: audit.Action | None = None,
    ) -> None:
        """Record a changed resource in the audit log, by its views; equal views are skipped.

        A write that records nothing is recorded by its documents: none goes unseen.
        """
        if before == after and action is None:
            return
        self.events.append(audit.event(action or audit.action_of(before, after), resource, name, before, after))

    def once_published(self, read: Callable[[AsyncSession], Awaitable[Shown]]) -> Awaitable[Shown]:
        """The result of ``read`` in this write's transaction, after its revision is made. Await it after the block."""
        found: asyncio.Future[Shown] = asyncio.get_running_loop().create_future()
        self.reads.append((read, found))
        return found


async def complete(write: ConfigWrite, signer: Signer, derive: Derive | None) -> None:
    """Derive documents, make the revision if anything differs, store the audit entries, read what is shown of it."""
    await write.session.flush()
    if derive is not None:
        await derive(write)
    changes = [change for change in await write.documents() if change.before != change.after]
    if changes or write.events or (write.staged and write.placement.has_step):
        await _make_revision(write, signer, changes)
    events = write.events or [_event(change) for change in changes]
    await audit.store(
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
    session, head = write.session, write.head
    write.revision = write.next_revision
    if changes:
        await _store(write, changes)
    digest = root_digest(await repository.bucket_digests(session))
    tried_first = not write.immediate and any(change.key.kind in STAGED_KINDS for change in changes)
    stable_digest = None
    if write.staged or (tried_first and await repository.goes_by_steps(session)):
        stable_digest = await write.placement.place(changes, repository.Head(write.revision, digest))
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


def _event(change: ChangedDocument) -> audit.Event:
    record = shown(change.as_record())
    before, after = record["before"], record["after"]
    # written only if no service recorded the write
    return audit.Event(audit.action_of(before, after), f"{record['kind']} document", record["id"], before, after)


class ConfigWriter:
    """Opens writes, one after the other: by a lock in this process, so that waiting writers hold no connection, and
    by the head's row across replicas.
    """

    def __init__(
        self, database: Database, signer: Signer, make_placement: MakePlacement, derive: Derive | None = None
    ) -> None:
        self._database = database
        self._signer = signer
        self._make_placement = make_placement
        self._derive = derive
        self._turn, self._urgent_turn = asyncio.Semaphore(1), asyncio.Semaphore(1)
        self._trials = asyncio.Semaphore(TRIALS_AT_ONCE)

    @asynccontextmanager
    async def begin(
        self,
        author: str,
        reason: str | None,
        origin: Origin = NOWHERE,
        *,
        immediate: bool = False,
        urgent: bool = False,
    ) -> AsyncIterator[ConfigWrite]:
        """A write that is committed, with its revision, when the block ends without an error.

        ``immediate``: to every node at once, without a roll-out. ``urgent``: before all that wait; a
        write that has lasted a second ends with :class:`UnavailableError` for it.
        """
        turn = self._urgent_turn if urgent else self._turn
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(_taken(turn, "Too many writes are waiting."))
            session = await stack.enter_async_context(self._database.transaction())
            if urgent:
                await repository.say_urgent(session)
            head = await repository.lock_head(session)
            if not urgent:
                await stack.enter_async_context(_ended_when(self._database, repository.urgent_waits, LONG_WRITE_S))
            write = ConfigWrite(
                session, head, self._make_placement, author=author, reason=reason, origin=origin, immediate=immediate
            )
            try:
                yield write
                await complete(write, self._signer, self._derive)
            except IntegrityError as error:
                raise conflict_of(error) from error

    @asynccontextmanager
    async def try_out(self, author: str) -> AsyncIterator[ConfigWrite]:
        """A trial write that is rolled back: it reads one instant and gives way to writes that it blocks."""
        async with _taken(self._trials, "Too many dry runs are under way."), self._database.trial() as session:
            blocks = functools.partial(repository.blocks_anybody, pid=await repository.pid_of(session))
            async with _ended_when(self._database, blocks, after_s=0.0):
                head = await repository.whole_head(session)
                write = ConfigWrite(session, head, self._make_placement, author=author)
                try:
                    yield write
                    await session.flush()
                except IntegrityError as error:
                    raise conflict_of(error) from error


@asynccontextmanager
async def _taken(turn: asyncio.Semaphore, too_many: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(TURN_WAIT_S):
            await turn.acquire()
    except TimeoutError:
        raise UnavailableError(too_many) from None
    try:
        yield
    finally:
        turn.release()


@asynccontextmanager
async def _ended_when(
    database: Database, must_end: Callable[[AsyncSession], Awaitable[bool]], after_s: float
) -> AsyncIterator[None]:
    """End the block with :class:`UnavailableError` once it has lasted ``after_s`` and ``must_end`` says so.

    A trial gives way to every write that it blocks, and a long write to an urgent one.
    """
    try:
        async with asyncio.timeout(None) as cut:
            looking = asyncio.create_task(_look(database, must_end, cut, after_s))
            try:
                yield
            finally:
                looking.cancel()
    except TimeoutError as error:
        if cut.expired():
            raise UnavailableError("This gave way to a write that could not wait. Nothing was changed.") from error
        raise


async def _look(
    database: Database, must_end: Callable[[AsyncSession], Awaitable[bool]], cut: asyncio.Timeout, after_s: float
) -> None:
    await asyncio.sleep(after_s)
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            async with database.read(reserved=True) as session:
                if await must_end(session):
                    cut.reschedule(asyncio.get_running_loop().time())
                    return
        except UnavailableError:
            continue  # the holder of the lock finds out itself that the database is unreachable


def conflict_of(error: IntegrityError) -> ConflictError:
    """The violated constraint of the database, in words for the caller."""
    cause = error.orig.__cause__ if error.orig is not None else None
    table = str(getattr(cause, "table_name", None) or "something else").replace("_", " ")
    if getattr(cause, "sqlstate", None) in {"23503", "23001"}:  # RESTRICT has a code of its own since Postgres 18
        return ConflictError(f"It is still used by: {table}.")
    return ConflictError(f"It contradicts what exists in: {table}.")


class Reach(Protocol):
    """Tells what nodes have applied."""

    async def reached(self, revision: int, wait_s: float) -> bool:
        """Wait until every connected node applied ``revision`` or a newer one; ``False`` after ``wait_s``."""
        ...


@dataclass(kw_only=True)
class Change:
    """One write request: ``begin`` the write, then ``answer`` with what it made."""

    writer: ConfigWriter
    reach: Reach
    author: str
    reason: str | None
    wait_s: float | None
    origin: Origin
    replay: Replay | None
    immediate: bool
    preconditions: Preconditions = field(default_factory=Preconditions)
    revision: int = 0
    """The revision after the write; 0 before it is committed."""
    _committed_s: float = 0.0
    _rollout_began: int | None = None

    def because(self, reason: str | None) -> None:
        """Take the reason from the body, if the header has none."""
        self.reason = self.reason or reason

    def begin(self, *, dry_run: bool = False, urgent: bool = False) -> AbstractAsyncContextManager[ConfigWrite]:
        """Open the write; it is committed when the block ends without an error, unless it is a ``dry_run``.

        ``urgent``: it waits for no other write that lasts.
        """
        return self.writer.try_out(self.author) if dry_run else self._begin(urgent=urgent)

    @asynccontextmanager
    async def _begin(self, *, urgent: bool) -> AsyncIterator[ConfigWrite]:
        opened = self.writer.begin(self.author, self.reason, self.origin, immediate=self.immediate, urgent=urgent)
        async with opened as write:
            if self.replay is not None:
                await self.replay.claim(write.session)
            yield write
            self.preconditions.require_checked()
        self.revision, self._rollout_began = write.revision, write.began
        self._committed_s = asyncio.get_running_loop().time()

    async def answer(
        self,
        view: BaseModel | None,
        status: int,
        *,
        location: str | None = None,
        secret: bool = False,
        tag: str | None = None,
    ) -> Response:
        """The answer to a committed write: the view, its tag, the revision, and whether all nodes have it.

        ``secret``: the view shows a secret once, so it has no tag and nobody may store it. ``tag``: that of what was
        written, where the view tells of the write.
        """
        headers = {"X-Tidegate-Revision": str(self.revision)}
        if self._rollout_began is not None:
            headers["X-Tidegate-Rollout"] = str(self._rollout_began)
        if location is not None:
            headers["Location"] = location
        if secret:
            headers["Cache-Control"] = "no-store"
        elif view is not None:
            headers["ETag"] = tag or etag_of(view)
        body = None if view is None else view.model_dump_json()
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self.replay is not None:
            made = without_secrets(view.model_dump(mode="json")) if secret and view is not None else None
            await self.replay.keep(status, headers, None if secret else body, made)
        # a revision that begins a roll-out is not for every node, so there is nothing to wait for
        if self.wait_s is not None and self._rollout_began is None and await self._reached(self.wait_s):
            headers["Preference-Applied"] = "wait"
            took_s = asyncio.get_running_loop().time() - self._committed_s
            headers["X-Tidegate-Enforced-Ms"] = f"{took_s * 1000:.1f}"
        return Response(body, status, headers)

    async def _reached(self, wait_s: float) -> bool:
        try:
            return await self.reach.reached(self.revision, wait_s)
        except UnavailableError:
            # the write is committed: an error here would deny that
            return False


async def _creation(
    request: Request,
    caller: Caller,
    reason: Reason,
    prefer: Annotated[
        str | None,
        Header(
            description="`wait=5`: answer when every connected node has it. "
            "`rollout=immediate`: to every node at once, whatever the roll-out policy says"
        ),
    ] = None,
) -> Change:
    return Change(
        writer=request.state.writer,
        reach=request.state.reach,
        author=caller.name,
        reason=reason,
        wait_s=wanted_wait_s(prefer),
        origin=Origin(caller.role, request.scope.get("request_id"), request.client.host if request.client else None),
        immediate=wants_immediate(prefer),
        replay=await replay_of(request, request.state.database, caller.id or caller.name),
    )


Creating = Annotated[Change, Depends(_creation)]
"""A write of what has no version before it: nothing that ``If-Match`` could name."""


async def _change(
    change: Creating,
    if_match: Annotated[str | None, Header(description="the ETag that was read")] = None,
    if_none_match: Annotated[str | None, Header(description="`*`: only if it does not exist")] = None,
) -> Change:
    change.preconditions = Preconditions(if_match, if_none_match)
    return change


Changing = Annotated[Change, Depends(_change)]
"""A write of something that may exist, with the preconditions that were sent."""
