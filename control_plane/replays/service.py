"""One request's ``Idempotency-Key``: claimed in the transaction of its write, answered again for a day."""

import hashlib
import re
from typing import Any

import structlog
from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.database import Database
from control_plane.errors import AnsweredBeforeError, ConflictError, FieldError, InvalidError, UnavailableError
from control_plane.replays import repository

HEADER = "Idempotency-Key"
_KEY = re.compile(r"[ -~]{1,256}")
_log = structlog.stdlib.get_logger("tidegate.replays")


class Replay:
    """What one POST with an ``Idempotency-Key`` does, at most once for its author and key."""

    def __init__(self, database: Database, author: str, key: str, request_sha256: str) -> None:
        self._database = database
        self._author = author
        self._key = key
        self._request_sha256 = request_sha256

    async def claim(self, session: AsyncSession) -> None:
        """Go on, in the transaction of the write, if nothing was done under this key.

        Raises :class:`AnsweredBeforeError` with the answer that was given; :class:`ConflictError` where that held a
        secret, or was lost; :class:`InvalidError` where the key belongs to another request.
        """
        if await repository.claim(session, self._author, self._key, self._request_sha256):
            return
        row = await repository.earlier(session, self._author, self._key)
        if row.request_sha256 != self._request_sha256:
            raise InvalidError([FieldError(HEADER, "belongs to another request: its method, path or body differ")])
        if row.made is not None:
            members = {name: value for name, value in row.made.items() if isinstance(value, str)}
            raise ConflictError("This was made already; its secret was shown then and is not stored.", (), **members)
        if row.status is None:
            raise ConflictError("This was done already, but its answer is not stored, or not yet: read the resource.")
        raise AnsweredBeforeError(row.status, row.headers, row.body)

    async def keep(self, status: int, headers: dict[str, str], body: str | None, made: dict[str, Any] | None) -> None:
        """Keep the answer of a committed write. Where the database is away now, a replay will say that it was done."""
        try:
            async with self._database.transaction() as session:
                await repository.answered(
                    session, self._author, self._key, status=status, headers=headers, body=body, made=made
                )
        except UnavailableError as error:
            _log.warning("an answer could not be kept for replays", cause=repr(error.__cause__))


async def replay_of(request: Request, database: Database, author: str) -> Replay | None:
    """The replay that a request asks for; only a POST can: the other methods are idempotent by themselves."""
    key = request.headers.get(HEADER)
    if key is None or request.method != "POST":
        return None
    if not _KEY.fullmatch(key):
        raise InvalidError([FieldError(HEADER, "must be 1 to 256 printable ASCII characters")])
    target = f"{request.method} {request.url.path}?{request.url.query}\n".encode()
    return Replay(database, author, key, hashlib.sha256(target + await request.body()).hexdigest())
