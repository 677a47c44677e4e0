"""`tidegate migrate`: the newest schema, or an older one, once the database is there."""

import asyncio
import sys

import asyncpg

from control_plane.migration import migrate, revert, revisions
from control_plane.postgres import libpq_url

RETRY_S = 0.1
CONNECT_TIMEOUT_S = 5.0
NOT_YET = (
    OSError,
    asyncpg.CannotConnectNowError,
    asyncpg.InvalidCatalogNameError,  # the server is up, the database is being made
)


def migrate_when_ready(url: str, *, wait_s: float, to: str = "head") -> int:
    """Wait ``wait_s`` at most until the database takes connections, then migrate it; returns the exit code.

    ``to``: the revision to be at, be it older (what newer ones added is dropped) or newer, or ``head``.
    """
    known = revisions()
    wanted = known[-1] if to == "head" else to
    if wanted not in known:
        print(f"tidegate: there is no revision {to}: {', '.join(known)}", file=sys.stderr)  # noqa: T201
        return 2
    try:
        at = asyncio.run(_wait(libpq_url(url), wait_s))
    except NOT_YET as error:
        reason = str(error) or "it does not answer"  # a timeout has no text
        print(f"tidegate: the database cannot be reached: {reason}", file=sys.stderr)  # noqa: T201 - the command's answer
        return 1
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:  # a wrong password, no right, a URL that cannot be
        print(f"tidegate: the database refuses: {error}", file=sys.stderr)  # noqa: T201 - the command's answer
        return 1
    if at is not None and at not in known:
        print(f"tidegate: the database is at {at}, which only a newer version knows", file=sys.stderr)  # noqa: T201
        return 1
    (revert if at is not None and wanted < at else migrate)(url, wanted)
    return 0


async def _wait(dsn: str, wait_s: float) -> str | None:
    """The revision that the database is at; none where it is empty."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    while True:
        try:
            connection = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S)
        except NOT_YET:
            if loop.time() >= deadline:
                raise
            await asyncio.sleep(RETRY_S)
        else:
            break
    try:
        if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
            return None
        at: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
        return at
    finally:
        await connection.close()
