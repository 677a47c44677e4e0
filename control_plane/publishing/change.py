"""A write over HTTP: its preconditions and reason, its revision, and the wait for the nodes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Protocol

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel

from control_plane.access.principals import Caller
from control_plane.audit.trail import Origin, without_secrets
from control_plane.errors import UnavailableError
from control_plane.publishing.writer import ConfigWrite, ConfigWriter
from control_plane.replays.service import Replay, replay_of
from control_plane.web.etags import Preconditions, etag_of
from control_plane.web.waiting import wanted_wait_s, wants_immediate

MAX_REASON_LENGTH = 500


class Reach(Protocol):
    """Tells what nodes have applied."""

    async def reached(self, revision: int, wait_s: float) -> bool:
        """Wait until every connected node applied ``revision`` or a newer one; ``False`` after ``wait_s``."""
        ...


class Change:
    """One write request: ``begin`` the write, then ``answer`` with what it made."""

    def __init__(
        self,
        *,
        writer: ConfigWriter,
        reach: Reach,
        author: str,
        reason: str | None,
        wait_s: float | None,
        origin: Origin,
        replay: Replay | None,
        immediate: bool = False,
    ) -> None:
        self.preconditions = Preconditions()
        self._writer = writer
        self._reach = reach
        self._author = author
        self._reason = reason
        self._wait_s = wait_s
        self._origin = origin
        self._replay = replay
        self._immediate = immediate
        self._revision = 0
        self._committed_s = 0.0
        self._rollout_began: int | None = None

    def because(self, reason: str | None) -> None:
        """Take the reason from the body, if the header has none."""
        self._reason = self._reason or reason

    @property
    def revision(self) -> int:
        """The revision after the write; 0 before it is committed."""
        return self._revision

    def begin(self, *, dry_run: bool = False, urgent: bool = False) -> AbstractAsyncContextManager[ConfigWrite]:
        """Open the write; it is committed when the block ends without an error, unless it is a ``dry_run``.

        ``urgent``: it waits for no other write that lasts.
        """
        return self._writer.try_out(self._author) if dry_run else self._begin(urgent=urgent)

    @asynccontextmanager
    async def _begin(self, *, urgent: bool) -> AsyncIterator[ConfigWrite]:
        opened = self._writer.begin(self._author, self._reason, self._origin, immediate=self._immediate, urgent=urgent)
        async with opened as write:
            if self._replay is not None:
                await self._replay.claim(write.session)
            yield write
            self.preconditions.require_checked()
        self._revision, self._rollout_began = write.revision, write.placement.began
        self._committed_s = asyncio.get_running_loop().time()

    async def answer(
        self, view: BaseModel | None, status: int, *, location: str | None = None, secret: bool = False
    ) -> Response:
        """The answer to a committed write: the view, its tag, the revision, and whether all nodes have it.

        ``secret``: the view shows a secret once, so it has no tag and nobody may store it.
        """
        headers = {"X-Tidegate-Revision": str(self._revision)}
        if self._rollout_began is not None:
            headers["X-Tidegate-Rollout"] = str(self._rollout_began)
        if location is not None:
            headers["Location"] = location
        if secret:
            headers["Cache-Control"] = "no-store"
        elif view is not None:
            headers["ETag"] = etag_of(view)
        body = None if view is None else view.model_dump_json()
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._replay is not None:
            made = without_secrets(view.model_dump(mode="json")) if secret and view is not None else None
            await self._replay.keep(status, headers, None if secret else body, made)
        # a revision that begins a roll-out is not for every node, so there is nothing to wait for
        if self._wait_s is not None and self._rollout_began is None and await self._reached(self._wait_s):
            headers["Preference-Applied"] = "wait"
            took_s = asyncio.get_running_loop().time() - self._committed_s
            headers["X-Tidegate-Enforced-Ms"] = f"{took_s * 1000:.1f}"
        return Response(body, status, headers)

    async def _reached(self, wait_s: float) -> bool:
        try:
            return await self._reach.reached(self._revision, wait_s)
        except UnavailableError:
            # the write is committed: an error here would deny that
            return False


async def _creation(
    request: Request,
    caller: Caller,
    reason: Annotated[str | None, Header(alias="X-Tidegate-Reason", max_length=MAX_REASON_LENGTH)] = None,
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
        reason=None if reason is None else _as_text(reason),
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


def _as_text(header: str) -> str:
    # headers arrive as latin-1; people write UTF-8
    text = header.encode("latin-1", "replace").decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()


Changing = Annotated[Change, Depends(_change)]
"""A write of something that may exist, with the preconditions that were sent."""
