"""schemathesis against a served API: every check but the one that ``fuzzing_hooks`` replaces."""

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

import httpx

SCHEMA_WITHIN_S = 60.0
"""A server makes its document when it is first asked, and may share the machine: the fuzzer's own 10 s are few."""
CONFIG = """
[phases.stateful.inference]
algorithms = []
"""
"""Only the document's own links: guessed ones take a limit's figure, `limit`, for its name in `/v1/limits/{limit}`."""
HOOKS = Path(__file__).with_name("fuzzing_hooks.py")


class Found(NamedTuple):
    """What a run without a failure says in the end."""

    cases: int
    links: int
    """That stateful testing followed; 0 without it."""
    text: str


async def fuzzed(
    url: str,
    headers: dict[str, str],
    directory: Path,
    *arguments: str,
    keeps_token: str = "",
    deterministic: bool = True,
) -> Found:
    """Run it until it is done; raises ``AssertionError`` with its report if it found anything or tested nothing.

    ``keeps_token`` is the id of the token that it goes by, which it may neither revoke nor rotate.
    """
    schema = directory / "openapi.json"
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=SCHEMA_WITHIN_S) as client:
        schema.write_bytes((await client.get("/openapi.json")).raise_for_status().content)
    (directory / "schemathesis.toml").write_text(CONFIG)
    fuzzer = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        str(schema),
        f"--url={url}",
        *(f"--header={name}: {value}" for name, value in headers.items()),
        "--checks=all",
        "--exclude-checks=positive_data_acceptance",
        *(("--generation-deterministic",) if deterministic else ()),
        "--request-timeout=30",
        "--warnings=off",
        "--no-color",
        *arguments,
        cwd=directory,
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(HOOKS), "FUZZER_KEEPS_TOKEN": keeps_token},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await fuzzer.communicate()
    text = said.decode()
    assert fuzzer.returncode == 0, text[-12_000:]
    cases = re.search(r"(\d+) generated", text)
    links = re.search(r"API Links:\s+(\d+)", text)
    assert cases is not None, text[-12_000:]
    return Found(int(cases[1]), int(links[1]) if links else 0, text)
