"""The jobs that take away what has ended: nodes end it by themselves at the instant, here it goes for good."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from control_plane.blocks.models import BlockRow
from control_plane.blocks.service import Blocks
from control_plane.clients import repository as clients
from control_plane.clients.service import end_overrides, publish, to_record
from control_plane.credentials.keys import service as keys
from control_plane.credentials.tokens import repository as tokens
from control_plane.credentials.tokens import service as token_service
from control_plane.database import Database
from control_plane.enforcement import repository as enforcement
from control_plane.enforcement.models import EnforcementRow
from control_plane.enforcement.service import EnforcementOverrides
from control_plane.errors import ConflictError
from control_plane.jobs.registry import Job
from control_plane.orm import has_ended, present
from control_plane.publishing.writer import ConfigWrite, ConfigWriter

EVERY_S = 30.0
BLOCKS_EVERY_S = 60.0
A_WRITE = 500
WRITES_A_RUN = 40


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
                outcomes.append(f"{await _all(writer, 'job:expiry', 'it has expired', expire, now)} {what}")
            except ConflictError as error:  # a roll-out holds one of them back; the others need not wait for it
                outcomes.append(f"no {what} ({error})")
        return "Expired: " + ", ".join(outcomes) + "."

    return Job("expiry", EVERY_S, run, idle=idle)


def ended_blocks_job(database: Database, writer: ConfigWriter) -> Job:
    """Delete blocks and enforcement overrides that have ended."""

    async def idle() -> bool:
        async with database.read() as session:
            return not await enforcement.any_ended(session)

    async def run() -> str:
        if await idle():
            return "Nothing had ended."
        async with database.read() as session:
            now = await present(session)
        author, reason = "job:ended-blocks", "their time is over"
        lifted = await _all(writer, author, reason, _blocks, now)
        reset = await _all(writer, author, reason, _enforcement_overrides, now)
        return f"Forgot {lifted} blocks and {reset} enforcement overrides."

    return Job("ended-blocks", BLOCKS_EVERY_S, run, idle=idle)


async def _all(writer: ConfigWriter, author: str, reason: str, expire: "Expire", now: datetime) -> int:
    expired = 0
    for _ in range(WRITES_A_RUN):
        async with writer.begin(author, reason) as write:
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
        if has_ended(row.expires_at, now):
            token_service.expire(write, row, now)
        else:
            before = token_service.view(row)
            token_service.forget_previous(write, row)
            write.record("token", row.token_id, before, token_service.view(row))
    return len(rows)


async def _blocks(write: ConfigWrite, now: datetime) -> int:
    rows = await enforcement.ended(write.session, BlockRow, now, A_WRITE)
    for row in rows:
        await Blocks().take_away(write, row.block, row)
    return len(rows)


async def _enforcement_overrides(write: ConfigWrite, now: datetime) -> int:
    rows = await enforcement.ended(write.session, EnforcementRow, now, A_WRITE)
    for row in rows:
        await EnforcementOverrides().take_away(write, row.target, row)
    return len(rows)


Expire = Callable[[ConfigWrite, datetime], Awaitable[int]]
_EXPIRES: dict[str, Expire] = {"clients' overrides": _overrides, "keys": _keys, "tokens": _tokens}
