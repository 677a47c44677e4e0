"""``/internal/v1``: what nodes call, with their region's credential.

From top to bottom: the routes, ACKs in batches, and who waits for them.
"""

import asyncio
import secrets
from datetime import UTC, datetime
from typing import Annotated, NamedTuple

import msgspec
import structlog
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response, StreamingResponse

from control_plane.access.principals import Caller, region_only
from control_plane.database import Database
from control_plane.errors import FieldError, ForbiddenError, InvalidError, UnavailableError
from control_plane.nodes import repository as nodes
from control_plane.nodes.repository import RegionAck
from control_plane.publishing import repository
from control_plane.publishing.repository import Head
from control_plane.push.stream import HeadWatcher, NodeStream, views
from control_plane.web.messages import body_of, decoded
from tidegate.contract.config import Ack
from tidegate.contract.status import Hello, Newest, NodeReport, Role

router = APIRouter(prefix="/internal/v1", tags=["nodes"], dependencies=[Depends(region_only)])

NODE_PATTERN = r"^[A-Za-z0-9._:@-]{1,128}$"
MAX_ERROR_LENGTH = 2_000
GATHER_S = 0.05
"""How long the first ACK of a batch waits for others."""
MAX_WAITING = 10_000
_ack_decoder = msgspec.json.Decoder(Ack)
_report_decoder = msgspec.json.Decoder(NodeReport)
_log = structlog.stdlib.get_logger("tidegate.acks")


def _hello(
    node: Annotated[str, Query(pattern=NODE_PATTERN)],
    region: Annotated[str, Query(max_length=64)],
    revision: Annotated[int, Query(ge=0, le=2**62)] = 0,
    digest: Annotated[str, Query(pattern=r"^([0-9a-f]{64})?$")] = "",
    version: Annotated[str, Query(max_length=64, pattern=r"^[!-~]*$")] = "",
    role: Role = "node",
) -> Hello:
    return Hello(node=node, region=region, revision=revision, digest=digest, version=version, role=role)


@router.get(
    "/stream",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
)
async def stream(request: Request, caller: Caller, hello: Annotated[Hello, Depends(_hello)]) -> StreamingResponse:
    """The configuration as it changes: one ``StreamMessage`` of the contract a line, for as long as the node stays."""
    if hello.region != caller.name:
        raise ForbiddenError(f"This credential speaks for the region {caller.name}, not for {hello.region}.")
    state = request.state
    if state.watcher.closing:
        raise UnavailableError("This replica is shutting down.")
    async with state.database.read() as session:
        found = await views(session)
        known = await repository.is_known(session, hello.revision, hello.digest)
    opening = await state.frames.update(found, hello, Head(hello.revision, hello.digest), known=known)
    name = secrets.token_hex(8)
    node_stream = NodeStream(state.frames, state.watcher, state.streams, state.settings.heartbeat_s, hello, name)
    body = node_stream.lines(opening, caller.credential, applied=hello.revision if known else 0)
    return StreamingResponse(body, media_type="application/x-ndjson", headers={"Cache-Control": "no-store"})


@router.get("/newest", responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}})
async def newest(request: Request, caller: Caller, node: Annotated[str, Query(pattern=NODE_PATTERN)]) -> Response:
    """The revision that this node or agent should have, as the database has it now: what proves shares the newest."""
    async with request.state.database.read() as session:
        head = (await views(session)).of(caller.name, node)
    body = msgspec.json.encode(Newest(revision=head.revision, digest=head.digest))
    return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})


@router.post("/acks", status_code=204, openapi_extra=body_of(Ack))
async def acknowledge(request: Request, caller: Caller) -> Response:
    """A node applied a revision and enforces it, or refused it for the reason in `error`."""
    ack = _ack(await request.body())
    acks: AckBatcher = request.state.acks
    await acks.submit(caller.name, ack)
    if ack.error is None:
        request.state.metrics.revision_applied(request.state.watcher.known_for_s(ack.revision))
    else:
        request.state.metrics.revision_refused()
    return Response(status_code=204)


@router.post("/reports", status_code=204, openapi_extra=body_of(NodeReport))
async def report(request: Request, caller: Caller) -> Response:
    """What a node decided since its last report; roll-outs compare these figures."""
    request.state.reports.take(caller.name, decoded(_report_decoder, await request.body()), datetime.now(UTC))
    return Response(status_code=204)


def _ack(body: bytes) -> Ack:
    ack = decoded(_ack_decoder, body)
    if ack.error is None:
        return ack
    reason = "".join(letter if letter.isprintable() else " " for letter in ack.error[:MAX_ERROR_LENGTH])
    return msgspec.structs.replace(ack, error=reason)


class _Waiting(NamedTuple):
    ack: RegionAck
    stored: asyncio.Future[None]


class AckBatcher:
    """Stores ACKs in batches. ``run`` must be running."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Waiting] = []
        self._wake = asyncio.Event()

    async def submit(self, region: str, ack: Ack) -> None:
        """Return once the ACK is committed.

        Raises :class:`InvalidError` for a revision that never was, :class:`UnavailableError` when Postgres is away.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise UnavailableError("Too many ACKs are waiting.")
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(RegionAck(region, ack), stored))
        self._wake.set()
        await stored

    async def run(self) -> None:
        """Store submitted ACKs, batch by batch, until cancelled."""
        try:
            while True:
                await self._wake.wait()
                await asyncio.sleep(GATHER_S)
                self._wake.clear()
                batch, self._waiting = self._waiting, []
                await self._store(batch)
        finally:
            for one in self._waiting:
                _fail(one, UnavailableError("This replica is shutting down."))

    async def _store(self, batch: list[_Waiting]) -> None:
        try:
            async with self._database.transaction() as session:
                named = {(one.ack.ack.revision, one.ack.ack.digest) for one in batch}
                known = {pair for pair in named if await repository.is_known(session, *pair)}
                good = [one for one in batch if (one.ack.ack.revision, one.ack.ack.digest) in known]
                if good:
                    await nodes.acknowledged(session, [one.ack for one in good])
        except UnavailableError as error:
            for one in batch:
                _fail(one, error)
            return
        except Exception as error:  # noqa: BLE001  callers must get an answer, and the next batch must be stored
            _log.error("ACKs were not stored", exc_info=error)
            for one in batch:
                _fail(one, UnavailableError("The ACK could not be stored."))
            return
        for one in batch:
            ack = one.ack.ack
            if (ack.revision, ack.digest) in known:
                if not one.stored.done():
                    one.stored.set_result(None)
            else:
                _fail(one, InvalidError([FieldError("digest", f"revision {ack.revision} has no such digest")]))


def _fail(one: _Waiting, error: Exception) -> None:
    if not one.stored.done():
        one.stored.set_exception(error)


class NodeReach:
    """Waits until a revision has reached every connected node."""

    def __init__(self, database: Database, watcher: HeadWatcher, heartbeat_s: float) -> None:
        self._database = database
        self._watcher = watcher
        self._heartbeat_s = heartbeat_s

    async def reached(self, revision: int, wait_s: float) -> bool:
        """Wait until every connected node applied ``revision`` or a newer one; ``False`` after ``wait_s``."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while True:
            # taken before the query, so that an ACK in between is not missed
            acked = self._watcher.acked.ticket()
            if await self._behind(revision) == 0:
                return True
            left_s = deadline - loop.time()
            if left_s <= 0 or self._watcher.closing:
                return False
            # nodes of a crashed replica age out without an ACK: check again now and then
            await acked.wait(min(left_s, self._heartbeat_s))

    async def _behind(self, revision: int) -> int:
        async with self._database.read() as session:
            return await nodes.behind(session, revision, self._heartbeat_s)
