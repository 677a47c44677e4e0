"""The one place that commits: a write changes tables and documents together, and makes at most one revision."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.audit.trail import Origin
from control_plane.database import Database
from control_plane.errors import ConflictError, UnavailableError
from control_plane.publishing import repository
from control_plane.publishing.giving_way import giving_way_to_all, giving_way_to_urgent, say_urgent
from control_plane.publishing.models import ConfigHead
from control_plane.publishing.placement import Place
from control_plane.publishing.publication import Derive, publish
from control_plane.publishing.signing import Signer
from control_plane.publishing.write import ConfigWrite

TURN_WAIT_S = 10.0
TRIALS_AT_ONCE = 2
NOWHERE = Origin()


class ConfigWriter:
    """Opens writes, one after the other: by a lock in this process, so that waiting writers hold no connection, and
    by the head's row across replicas.
    """

    def __init__(
        self,
        database: Database,
        signer: Signer,
        place: Place,
        derive: Derive | None = None,
    ) -> None:
        self._database = database
        self._signer = signer
        self._place = place
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

        ``immediate``: to every node at once, whatever the policy of roll-outs says. ``urgent``: past all that wait; a
        write that has lasted a second ends with :class:`UnavailableError` for it.
        """
        turn = self._urgent_turn if urgent else self._turn
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(_taken(turn, "Too many writes are waiting."))
            session = await stack.enter_async_context(self._database.transaction())
            if urgent:
                await say_urgent(session)
            head = await repository.lock_head(session)
            if not urgent:
                await stack.enter_async_context(giving_way_to_urgent(self._database))
            write = self._write(session, head, author, reason, origin, immediate=immediate)
            try:
                yield write
                await publish(write, self._signer, self._derive)
            except IntegrityError as error:
                raise conflict_of(error) from error

    @asynccontextmanager
    async def try_out(self, author: str) -> AsyncIterator[ConfigWrite]:
        """A write of which nothing is kept: it reads one instant, holds no turn and gives way to whom it blocks."""
        async with (
            _taken(self._trials, "Too many dry runs are under way."),
            self._database.trial() as session,
            giving_way_to_all(self._database, session),
        ):
            write = self._write(session, await repository.whole_head(session), author, None, NOWHERE, immediate=False)
            try:
                yield write
                await session.flush()
            except IntegrityError as error:
                raise conflict_of(error) from error

    def _write(
        self,
        session: AsyncSession,
        head: ConfigHead,
        author: str,
        reason: str | None,
        origin: Origin,
        *,
        immediate: bool,
    ) -> ConfigWrite:
        placement = self._place(session, head, immediate=immediate)
        return ConfigWrite(session, head, placement, author=author, reason=reason, origin=origin)


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


def conflict_of(error: IntegrityError) -> ConflictError:
    """What a constraint of the database says, in words for the caller."""
    cause = error.orig.__cause__ if error.orig is not None else None
    table = str(getattr(cause, "table_name", None) or "something else").replace("_", " ")
    if getattr(cause, "sqlstate", None) in {"23503", "23001"}:  # RESTRICT has a code of its own since Postgres 18
        return ConflictError(f"It is still used by: {table}.")
    return ConflictError(f"It contradicts what exists in: {table}.")
