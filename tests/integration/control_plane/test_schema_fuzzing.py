"""A schema fuzzer against the served control plane: for seconds here, by hand for as long as one likes."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from control_plane.settings import Settings
from tests.integration.control_plane.conftest import ADMIN_TOKEN
from tests.integration.control_plane.running import running

BUDGET_S = 12
NOT_CHECKED = (
    # A request may fit its schema and yet name a plan that does not exist, contradict its own path, or give two of
    # three members that exclude each other: 422 names the field, and JSON Schema cannot say it.
    "positive_data_acceptance",
)
# internal: nodes speak that, by a credential of their own. metrics: no JSON. import: no generator for NDJSON.
NOT_FUZZED = "^/(internal|metrics)|/import$"


@pytest.mark.timeout(180)
async def test_a_fuzzer_finds_nothing(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    # the fuzzer sends wrong credentials on purpose, and asks that each is told so with 401
    async with running(make_settings(max_failed_authentications=1_000_000), ADMIN_TOKEN) as control_plane:
        fuzzer = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{control_plane.url}/openapi.json",
            "--header",
            f"Authorization: Bearer {ADMIN_TOKEN}",
            "--phases=fuzzing,stateful",
            "--max-examples=2",
            f"--max-time={BUDGET_S}",
            "--checks=all",
            f"--exclude-checks={','.join(NOT_CHECKED)}",
            f"--exclude-path-regex={NOT_FUZZED}",
            "--generation-deterministic",
            "--request-timeout=30",
            "--warnings=off",
            "--no-color",
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await fuzzer.communicate()
        text = said.decode()
        assert fuzzer.returncode == 0, text[-6_000:]
        assert "generated" in text
