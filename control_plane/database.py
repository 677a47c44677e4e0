"""Postgres: sessions with short timeouts, and the translation of its errors."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, TypeVar
from weakref import WeakSet

import asyncpg
import structlog
from fastapi import Depends, Request
from sqlalchemy import event, exc
from sqlalchemy.engine.interfaces import AdaptedConnection
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from control_plane.errors import UnavailableError
from control_plane.postgres import ENGINE_URL, libpq_url
from control_plane.watchdog import DatabaseWatchdog

Item = TypeVar("Item")
POOL_WAIT_S = 5.0
LOCK_WAIT_MS = 5_000
PING_WAIT_S = 2.0
RECONNECT_S = 0.5
LOG_AGAIN_S = 60.0
"""Why Postgres is unreachable is logged when it changes, and so often."""
RESERVED = 4
"""Connections (at most half of all) reserved for writes and authentication."""
KEEP_ALIVE = {
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "2",
    "tcp_user_timeout": "9000",
}
"""Postgres drops a vanished replica after 9 s and releases its locks."""
_ANSWERED = "answered"
"""What is kept of a connection that is not new: it is forgotten when another one takes its place."""
GONE = (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""asyncpg's messages for a lost connection; the last one for a loss amid a message."""
UNDEFINED_TABLE = "42P01"
_log = structlog.stdlib.get_logger("tidegate.database")


class Database:
    """One pool of connections. Reads and transactions raise :class:`UnavailableError` while Postgres is unreachable."""

    def __init__(self, url: str, *, connect_timeout_s: float, command_timeout_s: float, pool_size: int) -> None:
        self._url = libpq_url(url)
        self._connect_timeout_s = connect_timeout_s
        self._command_timeout_s = command_timeout_s
        self._engine = create_async_engine(
            ENGINE_URL,
            async_creator=self._pooled_connection,
            pool_size=pool_size,
            max_overflow=0,  # a connection for one query costs more than a short wait: SCRAM alone takes milliseconds
            pool_timeout=POOL_WAIT_S,
            hide_parameters=True,
        )
        event.listen(self._engine.sync_engine, "checkout", _ping)
        event.listen(self._engine.sync_engine, "invalidate", _terminate)
        self._pooled: WeakSet[asyncpg.Connection] = WeakSet()
        self._watchdog = DatabaseWatchdog()
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)
        self._readers = asyncio.Semaphore(pool_size - min(RESERVED, pool_size // 2))

    @asynccontextmanager
    async def read(self, *, reserved: bool = False) -> AsyncIterator[AsyncSession]:
        """A session whose queries all see the same instant, and that never writes.

        ``reserved``: for short questions that others wait for; it finds a connection however many read.
        """
        with translated():
            async with self._place(reserved=reserved), self._sessions() as session, self._guarded(session):
                await session.connection(
                    execution_options={"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
                )
                yield session

    @asynccontextmanager
    async def trial(self) -> AsyncIterator[AsyncSession]:
        """A session on one instant that may write, and of which nothing is kept."""
        with translated():
            async with self._place(), self._sessions() as session, self._guarded(session):
                await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
                yield session  # closing it rolls back

    @asynccontextmanager
    async def _place(self, *, reserved: bool = False) -> AsyncIterator[None]:
        if reserved:
            yield
            return
        async with asyncio.timeout(POOL_WAIT_S):
            await self._readers.acquire()
        try:
            yield
        finally:
            self._readers.release()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A session that commits at the end of the block, or not at all. Nothing else commits."""
        with translated():
            async with self._sessions() as session, session.begin(), self._guarded(session):
                yield session

    @asynccontextmanager
    async def _guarded(self, session: AsyncSession) -> AsyncIterator[None]:
        try:
            async with self._watchdog.guarding():
                yield
        except UnavailableError:
            if self._watchdog.unreachable:  # a ROLLBACK would wait for an answer
                await session.invalidate()
            raise

    async def listen_connection(self, server_settings: dict[str, str] | None = None) -> asyncpg.Connection:
        """A connection of its own, outside the pool: for LISTEN, and for locks that live as long as it does.

        A command on it may take as long as a connection to make.
        """
        with translated():
            connection = await asyncpg.connect(
                self._url,
                timeout=self._connect_timeout_s,
                command_timeout=self._connect_timeout_s,
                server_settings=server_settings,
            )
        self._watchdog.unreachable = False
        return connection

    async def stay_connected(
        self,
        work: Callable[[asyncpg.Connection], Awaitable[None]],
        lost: str,
        *,
        again_after_s: float = RECONNECT_S,
        server_settings: dict[str, str] | None = None,
    ) -> None:
        """Do ``work`` on a :meth:`listen_connection`, again on a new one when it ends, until cancelled.

        Where Postgres is unreachable, the log says ``lost``.
        """
        logged, logged_s = "", 0.0
        while True:
            try:
                connection = await self.listen_connection(server_settings)
                logged = ""
                try:
                    await work(connection)
                finally:
                    connection.terminate()
            except UnavailableError as error:
                cause = repr(error.__cause__)
                if cause != logged or time.monotonic() >= logged_s + LOG_AGAIN_S:
                    _log.warning(lost, cause=cause)
                    logged, logged_s = cause, time.monotonic()
            await asyncio.sleep(again_after_s)

    async def _pooled_connection(self) -> asyncpg.Connection:
        settings = {"application_name": "tidegate-control-plane", "lock_timeout": str(LOCK_WAIT_MS), **KEEP_ALIVE}
        connection = await asyncpg.connect(
            self._url,
            timeout=self._connect_timeout_s,
            command_timeout=self._command_timeout_s,
            server_settings=settings,
        )
        self._pooled.add(connection)
        return connection

    async def watch(self, connection: asyncpg.Connection) -> None:
        """Watch a :meth:`listen_connection` until it is lost.

        If it does not answer for about 2.5 s, all who wait for Postgres get an error. The connection is
        terminated in the end.
        """
        with translated():
            await self._watchdog.watch(connection)

    async def close(self) -> None:
        """Close every pooled connection, also those that are in use."""
        await self._engine.dispose()
        for connection in list(self._pooled):
            connection.terminate()


def _ping(connection: AdaptedConnection, record: ConnectionPoolEntry, _: object) -> None:
    # SQLAlchemy's own would wait as long as the slowest command may take
    try:
        connection.run_async(lambda driver: driver.execute("SELECT 1", timeout=PING_WAIT_S))
    except (*GONE, asyncpg.PostgresError) as error:
        if _ANSWERED not in record.info:
            # A pooler takes connections whose database is away. SQLAlchemy would try once more, and then raise an error
            # that is none of the database.
            raise UnavailableError("The database did not answer.") from error
        raise exc.InvalidatePoolError from error
    record.info[_ANSWERED] = True


async def _reading(request: Request) -> AsyncIterator[AsyncSession]:
    database: Database = request.state.database
    async with database.read() as session:
        yield session


Reading = Annotated[AsyncSession, Depends(_reading, scope="function")]
"""For a route that reads: a session that sees one instant."""


def _terminate(connection: AdaptedConnection, *_: object) -> None:
    # SQLAlchemy would close it politely, and wait 2 s for a server that does not answer
    connection.driver_connection.terminate()


@contextmanager
def translated() -> Iterator[None]:
    """Translate every error of an unreachable Postgres into :class:`UnavailableError`, and no other error."""
    try:
        yield
    except (*GONE, exc.TimeoutError) as error:
        raise UnavailableError("The database cannot be reached.") from error
    except asyncpg.PostgresError as error:
        # What comes by SQLAlchemy is wrapped. This is of connections that listen: of a server that starts or stops, a
        # database that is being restored, a password that was changed.
        raise UnavailableError("The database does not take connections now.") from error
    except exc.DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == UNDEFINED_TABLE:
            raise UnavailableError("The database is not migrated to this version.") from error
        if error.connection_invalidated or isinstance(error.orig, OSError | TimeoutError) or _passes_with_time(error):
            raise UnavailableError("The database did not answer in time.") from error
        raise


def _passes_with_time(error: exc.DBAPIError) -> bool:
    # 08 connection, 28 authorisation, 3D no such database, 53 resources, 57 operator intervention; 55P03 lock timeout,
    # 40001/40P01 serialisation, deadlock, 55000 takes no connections, 25006 a standby, or a primary set read-only
    state = getattr(error.orig, "sqlstate", None) or ""
    return state[:2] in {"08", "28", "3D", "53", "57"} or state in {"55P03", "40001", "40P01", "55000", "25006"}


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """``items`` in parts of at most ``size``: a statement takes no more at once."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
