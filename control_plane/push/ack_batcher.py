"""Gathers ACKs for a moment and stores them together: 500 ACKs at once take a few statements."""

import asyncio
from typing import NamedTuple

import structlog

from control_plane.database import Database
from control_plane.errors import FieldError, InvalidError, UnavailableError
from control_plane.nodes import repository as nodes
from control_plane.nodes.repository import RegionAck
from control_plane.publishing import repository
from tidegate.contract.config import Ack

GATHER_S = 0.05
"""How long the first ACK of a batch waits for others."""
MAX_WAITING = 10_000
_log = structlog.stdlib.get_logger("tidegate.acks")


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
