"""Every credential in force, by its hash: known before anybody sends it, so that no guesser can stand in its way."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import structlog
from sqlalchemy import ColumnElement, func, or_
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.database import Database
from control_plane.errors import UnavailableError
from control_plane.orm import KnownBySecret

AT_MOST_EVERY_S = 1.0
AT_LEAST_EVERY_S = 30.0
LoadHashes = Callable[[AsyncSession], Awaitable[set[str]]]
_log = structlog.stdlib.get_logger("tidegate.access")


def known_by(table: type[KnownBySecret], sha256: Any) -> ColumnElement[bool]:
    """The condition that a row is known by this hash now."""
    before = (table.previous_sha256 == sha256) & (table.previous_expires_at > func.now())
    return or_(table.sha256 == sha256, before)


class Ticket(Protocol):
    """Waits for the first revision after it was taken."""

    async def wait(self, timeout_s: float) -> None:
        """Return once there is one, or after ``timeout_s``."""


class LiveCredentials:
    """The SHA-256 of each live credential by path prefix; ``complete`` once all of them were read.

    Whoever is in it passes the throttle; what the credential allows is still looked up, so a revoked one that lingers
    here for a second opens nothing.
    """

    def __init__(self, loads: Mapping[str, LoadHashes]) -> None:
        self._loads = loads
        self._hashes: dict[str, set[str]] = {prefix: set() for prefix in loads}
        self.complete = False

    def holds(self, prefix: str, sha256: str) -> bool:
        """Whether this credential is in force, as far as it is known here."""
        return sha256 in self._hashes[prefix]

    def found(self, prefix: str, sha256: str) -> None:
        """A look-up found this credential in force."""
        self._hashes[prefix].add(sha256)

    def missed(self, prefix: str, sha256: str) -> None:
        """A look-up did not find this credential."""
        self._hashes[prefix].discard(sha256)

    async def run(self, database: Database, next_revision: Callable[[], Ticket]) -> None:
        """Read them anew after each revision until cancelled: whatever makes or ends a credential makes one."""
        while True:
            ticket = next_revision()
            try:
                await self.load(database)
            except UnavailableError as error:
                _log.warning("which credentials are in force must wait for the database", cause=repr(error.__cause__))
            await asyncio.sleep(AT_MOST_EVERY_S)
            await ticket.wait(AT_LEAST_EVERY_S if self.complete else 0.0)

    async def load(self, database: Database) -> None:
        """Read them all once."""
        async with database.read(reserved=True) as session:
            self._hashes = {prefix: await load(session) for prefix, load in self._loads.items()}
        self.complete = True
