"""The files of ``docs/how-it-works.md`` that a decision goes through are those that a decision goes through."""

import asyncio
from pathlib import Path

from data_plane.node import Node
from testing.entered import files_entered
from testing.node import key_of, rule, serving, settings_for, write_snapshot
from tidegate.contract.config import Client, Endpoint, Plan
from tools.docs.flows import steps_of

FLOOR = {"data_plane/process.py"}
"""The clock: the page names it once for all flows."""
BODY = b'{"api_key":"tg_acme","method":"GET","path":"/users/1"}'
REQUEST = b"POST /v1/check HTTP/1.1\r\nhost: node\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
CONFIG = [
    Plan(plan="p", limits=(rule(1, "hourly", 1_000),)),
    Client(client="acme", plan="p"),
    key_of("acme", "tg_acme"),
    Endpoint(endpoint="get-user", method="GET", path="/users/{id}"),
]


async def test_a_decision_enters_the_files_of_the_page_and_no_others(tmp_path: Path, valkey_url: str) -> None:
    await write_snapshot(tmp_path / "snapshot", CONFIG)
    async with serving(Node(settings_for(tmp_path / "snapshot", valkey_url))) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))

        async def ask() -> None:
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))

        for _ in range(3):
            await ask()
        seen = []
        for _ in range(8):  # what goes on in the background is not in all of them
            with files_entered() as files:
                await ask()
            seen.append(files)
        writer.close()
    through = set.intersection(*seen)
    page = {step.file for step in steps_of("Decision") if step.file.endswith(".py")}
    assert through - FLOOR == page
    assert through > FLOOR
