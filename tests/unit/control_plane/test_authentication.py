"""What the database is asked about a credential: nothing where the credential itself says that it is wrong."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import Message, Receive, Scope, Send

from control_plane.access.authentication import Authentication
from control_plane.access.live import LiveCredentials
from control_plane.access.principals import Principal
from control_plane.access.throttle import ADDRESS_FACTOR, MAX_WAITING
from control_plane.database import Database
from tidegate.contract.credentials import make_credential, secret_sha256

RIGHT = make_credential("admin", bytes(range(32)))
HAND_MADE = "tga_written-by-hand"
MAX_FAILURES = 3


class CountingDatabase:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.slow = asyncio.Event()
        self.slow.set()

    @asynccontextmanager
    async def read(self, *, reserved: bool = False) -> AsyncIterator[AsyncSession]:
        assert reserved, "a reader of everything would keep callers out"
        self.asked += 1
        await self.slow.wait()
        yield cast("AsyncSession", None)


class Door:
    """The middleware in front of an application that welcomes everybody."""

    def __init__(self) -> None:
        self.database = CountingDatabase()
        known = {secret_sha256(secret) for secret in (RIGHT, HAND_MADE)}

        async def find(_: AsyncSession, sha256: str) -> Principal | None:
            return Principal("me", "admin") if sha256 in known else None

        async def welcome(_: Scope, __: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def in_force(_: AsyncSession) -> set[str]:
            return {secret_sha256(RIGHT)}

        self.live = LiveCredentials({"/v1/": in_force})
        self._app = Authentication(welcome, lookups={"/v1/": find}, live=self.live, max_failures=MAX_FAILURES)

    async def status(self, secret: str, address: str = "203.0.113.7") -> int:
        """How a request with this credential is answered."""
        statuses: list[int] = []

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope = {
            "type": "http",
            "path": "/v1/plans",
            "client": (address, 1),
            "headers": [(b"authorization", b"Bearer " + secret.encode())],
            "state": {"database": self.database},
        }
        await self._app(scope, _nothing, send)
        return statuses[0]


async def _nothing() -> Message:
    return {"type": "http.request", "body": b""}


async def test_a_credential_whose_checksum_is_wrong_is_refused_unseen() -> None:
    handler = Door()
    assert await handler.status(RIGHT) == 200
    assert handler.database.asked == 1
    for kind in ("admin", "region", "gateway"):
        mistyped = make_credential(kind, bytes(32))[:-1] + "!"
        assert await handler.status(mistyped) == 401
    assert handler.database.asked == 1
    # the first admin token may be any text
    assert await handler.status(HAND_MADE) == 200
    assert await handler.status(make_credential("admin", bytes(32))) == 401
    assert handler.database.asked == 3


async def test_who_varies_the_beginning_is_counted_by_address() -> None:
    handler = Door()
    statuses = [await handler.status(f"{number:08} and more") for number in range(MAX_FAILURES * ADDRESS_FACTOR + 2)]
    assert statuses == [401] * (MAX_FAILURES * ADDRESS_FACTOR) + [429] * 2
    # from elsewhere nothing was guessed; and a right one is let in, known before or not
    assert await handler.status("one more guess", address="203.0.113.8") == 401
    assert await handler.status(RIGHT) == 200
    assert await handler.status(HAND_MADE) == 200


async def test_a_credential_in_force_passes_however_many_wrong_ones_wait() -> None:
    handler = Door()
    database = cast("Database", handler.database)
    await handler.live.load(database)
    for number in range(MAX_FAILURES * ADDRESS_FACTOR):
        assert await handler.status(f"{number:08} and more") == 401
    handler.database.slow.clear()
    guesses = [asyncio.create_task(handler.status(f"guess {number:08}")) for number in range(MAX_WAITING + 30)]
    while sum(task.done() for task in guesses) < 30:  # refused at once: the gate is full
        await asyncio.sleep(0)
    handler.database.slow.set()
    # it was never sent before
    assert await handler.status(RIGHT) == 200
    assert sum(not task.done() for task in guesses) > MAX_WAITING // 2
    await asyncio.gather(*guesses)
