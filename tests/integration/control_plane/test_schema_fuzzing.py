"""A schema fuzzer against the served control plane, in every phase: for seconds in CI, for minutes at night."""

from collections.abc import Callable
from pathlib import Path

import pytest

from control_plane.settings import Settings
from testing.control_plane import running
from testing.effort import share
from testing.fuzzer import fuzzed
from tests.integration.control_plane.conftest import ADMIN_TOKEN

LONG_S = share(ci=0, nightly=600)
UNLINKED_PHASES = "--phases=examples,coverage,fuzzing"
ALL_PHASES = f"{UNLINKED_PHASES},stateful"
SHORT_S = 8
INTERNAL = "^/internal/"
"""What nodes call, by their region's credential. None of it makes anything that a link could lead to."""


@pytest.mark.timeout(180 + 3 * LONG_S)
async def test_a_fuzzer_finds_nothing(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    # the fuzzer sends wrong credentials on purpose, and asks that each is told so with 401
    settings = make_settings(max_failed_authentications=1_000_000, heartbeat_s=2.0)
    async with running(settings, ADMIN_TOKEN) as control_plane:
        (own,) = (await control_plane.admin.get("/v1/tokens")).json()["items"]

        async def run(token: str, *arguments: str) -> tuple[int, int]:
            found = await fuzzed(
                control_plane.url,
                {"Authorization": f"Bearer {token}"},
                tmp_path,
                *arguments,
                keeps_token=own["token_id"],
                deterministic=not LONG_S,
            )
            print(found.text)  # noqa: T201  # -rP shows it
            return found.cases, found.links

        admin = f"--exclude-path-regex={INTERNAL}"
        if LONG_S:
            cases, links = await run(ADMIN_TOKEN, admin, ALL_PHASES, f"--max-time={LONG_S}")
        else:
            # a busy machine takes seconds to read the schema, which count; links are followed with random bodies
            for phase in ("examples", "coverage"):  # each a time of its own: together the first takes it all
                cases, _ = await run(
                    ADMIN_TOKEN, admin, f"--phases={phase}", "--max-examples=1", f"--max-time={SHORT_S}"
                )
                assert cases > 0, phase
            _, links = await run(ADMIN_TOKEN, admin, "--phases=stateful", "--max-examples=8")
        assert cases > 0
        assert links > 0
        assert (await control_plane.admin.get("/v1/plans")).status_code == 200, "its token still works"

        await control_plane.add_region("us-east")
        cases, _ = await run(
            control_plane.credentials["us-east"],
            f"--include-path-regex={INTERNAL}",
            UNLINKED_PHASES,
            f"--max-time={LONG_S // 4 or SHORT_S}",
        )
        assert cases > 0
