"""`tidegate migrate`: the newest schema, once the database is there."""

import asyncio
import sys

import asyncpg
from sqlalchemy import make_url

from control_plane.database import migrate

RETRY_S = 0.1
NOT_YET = (
    OSError,
    asyncpg.CannotConnectNowError,
    asyncpg.InvalidCatalogNameError,  # the server is up, the database is being made
)


def migrate_when_ready(url: str, *, wait_s: float) -> int:
    """Wait ``wait_s`` at most until the database takes connections, then migrate it; returns the exit code."""
    try:
        asyncio.run(_wait(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False), wait_s))
    except NOT_YET as error:
        print(f"tidegate: the database cannot be reached: {error}", file=sys.stderr)  # noqa: T201 - the command's answer
        return 1
    migrate(url)
    return 0


async def _wait(dsn: str, wait_s: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    while True:
        try:
            connection = await asyncpg.connect(dsn, timeout=5)
        except NOT_YET:
            if loop.time() >= deadline:
                raise
            await asyncio.sleep(RETRY_S)
        else:
            await connection.close()
            return
