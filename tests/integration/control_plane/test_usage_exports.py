"""Usage as CSV: the same lines as in JSON, a page or everything, and few exports at once."""

import asyncio
import csv
import io
from collections.abc import Callable
from datetime import timedelta

import pytest
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from control_plane.database import Database
from control_plane.errors import UnavailableError
from control_plane.settings import Settings
from control_plane.usage.exports import Exports
from control_plane.usage.repository import UsageQuery
from testing.control_plane import RunningControlPlane
from tests.integration.control_plane.usage_batches import batch, cell, now, ship


async def test_csv_has_the_same_lines(served: RunningControlPlane) -> None:
    await ship(served, batch(1, cell("acme", 10, 2), cell('o"dd,', 1)))
    answer = await served.admin.get("/v1/usage", params={"group_by": "client"}, headers={"Accept": "text/csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["client"], row["allowed"], row["denied"]) for row in rows] == [
        ("acme", "10", "2"),
        ('o"dd,', "1", "0"),
    ]


async def test_no_label_is_a_formula(served: RunningControlPlane) -> None:
    signs = ("=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\t=1", "\uff1d1")
    await ship(served, batch(1, *(cell(name, 1) for name in (*signs, "a=b"))))
    answer = await served.admin.get("/v1/usage", params={"group_by": "client"}, headers={"Accept": "text/csv"})
    found = {row["client"] for row in csv.DictReader(io.StringIO(answer.text))}
    assert found == {*(f"'{name}" for name in signs), "a=b"}


async def test_csv_is_everything_unless_a_page_is_asked_for(served: RunningControlPlane) -> None:
    names = [f"client-{number:04}" for number in range(1_500)]
    await ship(served, *(batch(at, *(cell(name) for name in names[at - 1 :: 3])) for at in (1, 2, 3)))

    async def read(**query: str) -> tuple[list[str], str | None]:
        asked = {"group_by": "hour,client", **query}
        answer = await served.admin.get("/v1/usage", params=asked, headers={"Accept": "text/csv"})
        assert answer.status_code == 200, answer.text
        lines = [line for line in csv.DictReader(io.StringIO(answer.text)) if line["hour"].endswith(":00:00Z")]
        return [line["client"] for line in lines], answer.headers.get("x-next-cursor")

    assert await read() == (names, None)
    part, cursor = await read(limit="900")
    assert part == names[:900]
    assert await read(limit="900", cursor=str(cursor)) == (names[900:], None)
    assert await read(client="nobody") == ([], None)


async def test_exports_are_few_at_once_and_end_with_their_readers(make_settings: Callable[..., Settings]) -> None:
    database = Database(
        make_settings().database_url.get_secret_value(), connect_timeout_s=5, command_timeout_s=5, pool_size=3
    )
    exports = Exports(database)
    query = UsageQuery(("client",), "hour", now(), now() + timedelta(hours=1), {})

    async def gone(_: object) -> None:
        raise OSError

    async def lose_reader(export: StreamingResponse) -> None:
        with pytest.raises(ClientDisconnect):
            await export({"type": "http", "asgi": {"spec_version": "2.4"}}, asyncio.Event().wait, gone)

    try:
        open_ones = [await exports.whole(query), await exports.whole(query)]
        with pytest.raises(UnavailableError, match="2 exports"):
            await exports.whole(query)
        for one in open_ones:
            await lose_reader(one)
        await lose_reader(await exports.whole(query))
    finally:
        await database.close()
