"""A replica that waits for Postgres says so once, not with each of its tries."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from control_plane import database as module
from control_plane.database import Database
from control_plane.errors import UnavailableError


class Postgres:
    """Fails each try for the reason of its turn; ``None``: a connection, which is lost at once."""

    def __init__(self, reasons: list[str | None]) -> None:
        self._reasons = iter(reasons)
        self.asked_enough = asyncio.Event()

    async def listen_connection(self, _: object) -> "Postgres":
        reason = next(self._reasons, "")
        if reason == "":
            self.asked_enough.set()
            await asyncio.Event().wait()
        if reason is not None:
            raise UnavailableError("The database cannot be reached.") from OSError(reason)
        return self

    def terminate(self) -> None: ...


@pytest.mark.parametrize(
    ("reasons", "again_s", "logged"),
    [
        (["refused"] * 5, 60.0, ["refused"]),
        (["refused"] * 3, 0.0, ["refused"] * 3),
        (["refused", "refused", "starting", "starting"], 60.0, ["refused", "starting"]),
        (["refused", None, "refused", "refused"], 60.0, ["refused", "refused"]),
    ],
)
async def test_why_postgres_is_unreachable_is_logged_when_it_changes_and_now_and_then(
    monkeypatch: pytest.MonkeyPatch, reasons: list[str | None], again_s: float, logged: list[str]
) -> None:
    monkeypatch.setattr(module, "LOG_AGAIN_S", again_s)
    postgres: Any = Postgres(reasons)

    async def work(_: object) -> None: ...

    with capture_logs() as lines:
        staying = asyncio.create_task(Database.stay_connected(postgres, work, "lost sight", again_after_s=0.0))
        await asyncio.wait_for(postgres.asked_enough.wait(), 10)
        staying.cancel()
    assert [line["cause"] for line in lines if line["event"] == "lost sight"] == [repr(OSError(why)) for why in logged]
