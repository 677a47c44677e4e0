"""The job that takes away what has expired: nodes end it by themselves at the instant, here it goes for good."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from control_plane.clients import repository as clients
from control_plane.clients.service import end_overrides, publish, to_record
from control_plane.credentials.keys import service as keys
from control_plane.credentials.tokens import repository as tokens
from control_plane.credentials.tokens.service import forget_previous
from control_plane.credentials.tokens.service import view as token_view
from control_plane.database import Database
from control_plane.errors import ConflictError
from control_plane.jobs.registry import Job
from control_plane.orm import present
from control_plane.publishing.repository import DocumentKey
from control_plane.publishing.writer import ConfigWrite, ConfigWriter

EVERY_S = 30.0
A_WRITE = 500
WRITES_A_RUN = 40
AUTHOR = "job:expiry"


def expiry_job(database: Database, writer: ConfigWriter) -> Job:
    """Forget overrides, keys and tokens whose time is over."""

    async def idle() -> bool:
        async with database.read() as session:
            now = await present(session)
            return not (await clients.any_ended(session, now) or await tokens.any_ended(session, now))

    async def run() -> str:
        if await idle():
            return "Nothing had expired."
        async with database.read() as session:
            now = await present(session)
        outcomes = []
        for what, expire in _EXPIRES.items():
            try:
                outcomes.append(f"{await _all(writer, expire, now)} {what}")
            except ConflictError as error:  # a roll-out holds one of them back; the others need not wait for it
                outcomes.append(f"no {what} ({error})")
        return "Expired: " + ", ".join(outcomes) + "."

    return Job("expiry", EVERY_S, run, idle=idle)


async def _all(writer: ConfigWriter, expire: "Expire", now: datetime) -> int:
    expired = 0
    for _ in range(WRITES_A_RUN):
        async with writer.begin(AUTHOR, "it has expired") as write:
            count = await expire(write, now)
        expired += count
        if count < A_WRITE:
            break
    return expired


async def _overrides(write: ConfigWrite, now: datetime) -> int:
    rows = await clients.with_ended_overrides(write.session, now, A_WRITE)
    for row in rows:
        before = to_record(row)
        end_overrides(row, now)
        publish(write, row)
        write.record("client", row.client, before, to_record(row))
    return len(rows)


async def _keys(write: ConfigWrite, now: datetime) -> int:
    rows = await clients.ended_keys(write.session, now, A_WRITE)
    for row in rows:
        await keys.take_away(write, row)
    return len(rows)


async def _tokens(write: ConfigWrite, now: datetime) -> int:
    rows = await tokens.ended(write.session, now, A_WRITE)
    for row in rows:
        before = token_view(row)
        forget_previous(write, row)
        if row.expires_at is not None and row.expires_at <= now:
            row.revoked_at = now
            if row.role == "gateway":
                write.withdraw(DocumentKey("gateway", row.name))
            write.record("token", row.token_id, before, None, "revoke")
        else:
            write.record("token", row.token_id, before, token_view(row))
    return len(rows)


Expire = Callable[[ConfigWrite, datetime], Awaitable[int]]
_EXPIRES: dict[str, Expire] = {"clients' overrides": _overrides, "keys": _keys, "tokens": _tokens}
