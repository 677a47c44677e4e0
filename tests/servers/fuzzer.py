"""schemathesis against a served API: every check but the one that ``fuzzing_hooks`` replaces."""

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

HOOKS = Path(__file__).with_name("fuzzing_hooks.py")


class Found(NamedTuple):
    """What a run without a failure says in the end."""

    cases: int
    links: int
    """That stateful testing followed; 0 without it."""
    text: str


async def fuzzed(url: str, headers: dict[str, str], directory: Path, *arguments: str) -> Found:
    """Run it until it is done; raises ``AssertionError`` with its report if it found anything or tested nothing."""
    fuzzer = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"{url}/openapi.json",
        *(f"--header={name}: {value}" for name, value in headers.items()),
        "--checks=all",
        "--exclude-checks=positive_data_acceptance",
        "--generation-deterministic",
        "--request-timeout=30",
        "--warnings=off",
        "--no-color",
        *arguments,
        cwd=directory,
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(HOOKS)},
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
