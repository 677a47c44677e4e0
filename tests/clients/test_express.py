"""The Express middleware by its own tests, with node's test runner, real Express and a real node behind it."""

import asyncio
import contextlib
import json
import os
import re
from pathlib import Path

import pytest

from data_plane.node import Node
from testing.node import GATEWAY_TOKEN, key_of, rule, serving, settings_for, write_snapshot
from testing.npm import install, program
from tests.gateways.test_forged import FORGED_ADDRESSES, FORGED_METHODS, FORGED_URIS, QUERIES, TOLD_BY_GATEWAYS
from tidegate.contract.config import Client, Endpoint, Gateway, Plan
from tidegate.contract.credentials import secret_sha256

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "clients" / "express"
PATIENCE_S = 100
FEW = ("hourly", 3)
CLIENTS = [Client(client=f"c{nth}", plan="few") for nth in range(500)]
CONFIG = [
    Plan(plan="few", limits=(rule(1, *FEW),)),
    Plan(plan="many", limits=(rule(2, "hourly", 1_000_000),)),
    Plan(plan="tenants", limits=(rule(3, "by-tenant", 1, scope="attribute:tenant"),)),
    Plan(plan="anonymous", limits=(rule(4, "per-ip", 2, scope="ip"),)),
    Endpoint(endpoint="export", method="POST", path="/api/exports", cost=2),
    Endpoint(endpoint="health", method="GET", path="/health", exempt=True),
    Gateway(gateway="express", sha256=secret_sha256(GATEWAY_TOKEN)),
    *CLIENTS,
    *(key_of(one.client, f"tg_{one.client}") for one in CLIENTS),
    Plan(plan="leased", limits=(rule(5, "hourly", 600),)),
    *(Client(client=f"leased-{nth}", plan="leased") for nth in range(4)),
    Client(client="rich", plan="many"),
    key_of("rich", "tg_rich"),
    Client(client="tenants", plan="tenants"),
    key_of("tenants", "tg_tenants"),
    Client(client="gone", plan="few", status="suspended"),
    key_of("gone", "tg_gone"),
]

FORGED = {
    "addresses": FORGED_ADDRESSES, "uris": FORGED_URIS, "methods": FORGED_METHODS, "queries": QUERIES,
    "told": TOLD_BY_GATEWAYS,
}  # fmt: skip


def failures_in(output: str) -> str:
    """Of a report in TAP: what failed, with what was said of it; else its end."""
    found = re.findall(r"^ *not ok .*\n(?: +---\n(?:.*\n)*? +\.\.\.\n)?", output, re.MULTILINE)
    return "".join(found)[-6_000:] or output[-6_000:]


async def run(*command: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """A command in the package's folder: its exit code, and all that it wrote."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=PACKAGE, env=os.environ | (env or {}),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(PATIENCE_S):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return process.returncode, output.decode()


@pytest.fixture
def packages() -> None:
    """What the package is tested with."""
    install(PACKAGE)


@pytest.mark.usefixtures("packages")
async def test_the_express_middleware(tmp_path: Path, valkey_url: str) -> None:
    node_program = program("node")
    await write_snapshot(tmp_path / "snapshot", CONFIG)
    async with contextlib.AsyncExitStack() as running:
        urls = {}
        for trust in ("network", "token"):
            unknown_key = "refuse" if trust == "token" else "anonymous"
            settings = settings_for(tmp_path / "snapshot", valkey_url, trust=trust, node=trust, unknown_key=unknown_key)
            urls[trust] = await running.enter_async_context(serving(Node(settings)))
        code, output = await run(
            node_program, "--test", "--test-timeout=40000", "--test-reporter=tap",
            *(str(one.relative_to(PACKAGE)) for one in sorted((PACKAGE / "test").glob("*.test.js"))),
            env={
                "TIDEGATE_URL": urls["network"], "TIDEGATE_STRICT_URL": urls["token"], "TIDEGATE_TOKEN": GATEWAY_TOKEN,
                "TIDEGATE_FORGED": json.dumps(FORGED),
            },
        )  # fmt: skip
    assert code == 0, failures_in(output)
    assert "# fail 0" in output
    assert "# SKIP" not in output
    assert output.count("ok ") > 40, "the suites that need a node ran, for both versions of Express"


@pytest.mark.usefixtures("packages")
async def test_its_types_hold() -> None:
    """The package's own code against its types, and a user's program against them."""
    code, output = await run(program("node"), "node_modules/typescript/bin/tsc", "--project", "tsconfig.json")
    assert code == 0, output
