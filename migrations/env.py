"""Alembic's entry: runs migrations over asyncpg, and gives up rather than block a live database for long."""

import asyncio
from functools import partial

import asyncpg
from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

from control_plane.migration import MIGRATES_ALONE
from control_plane.postgres import ENGINE_URL, libpq_url

TURN_TIMEOUT = "300s"
LOCK_TIMEOUT = "4s"
STATEMENT_TIMEOUT = "60s"


def _run(connection: Connection) -> None:
    # it is held until the connection closes
    connection.execute(text(f"SET lock_timeout = '{TURN_TIMEOUT}'"))
    connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": MIGRATES_ALONE})
    # DDL that waits for a lock makes everybody else wait behind it
    connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
    connection.execute(text(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'"))
    connection.commit()
    # tests compare the schema with the models; a migration does not load them, which would take a second
    models = context.config.attributes.get("models")
    context.configure(connection=connection, target_metadata=models, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


async def _main() -> None:
    connect = partial(asyncpg.connect, libpq_url(context.config.attributes["url"]))
    engine = create_async_engine(ENGINE_URL, async_creator=connect, poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(_run)
    await engine.dispose()


asyncio.run(_main())
