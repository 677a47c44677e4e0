"""The control plane's files of the Config flow in ``docs/how-it-works.md`` are those that a write goes through."""

from pathlib import Path

from testing.control_plane import RunningControlPlane
from testing.entered import files_entered
from tools.docs.flows import steps_of

FLOOR = (
    "control_plane/access/",
    "control_plane/web/",
    "control_plane/database.py",
    "control_plane/watchdog.py",
    "control_plane/metrics.py",
    "control_plane/replays/",
    "control_plane/credentials/tokens/",
    "control_plane/regions/repository.py",
    # timers, and jobs that run every second
    "control_plane/app.py",
    "control_plane/canary/service.py",
    "control_plane/console/feed.py",
    "control_plane/jobs/",
    "control_plane/nodes/reports.py",
    "control_plane/quotas/jobs.py",
    "control_plane/quotas/repository.py",
    "control_plane/usage/questions.py",
)
"""What the page names once for all flows (who asks, HTTP, the database, metrics), and what runs meanwhile."""
LIMIT = {"scope": "client", "limit": 100, "window_s": 3600}


async def test_a_change_of_a_limit_enters_the_files_of_the_page_and_no_others(served: RunningControlPlane) -> None:
    (await served.admin.put("/v1/plans/pro", json={"limits": [LIMIT | {"name": "hourly"}]})).raise_for_status()
    seen = []
    async with served.node().following() as node:
        await node.until(2)
        for number in range(6):  # what goes on in the background is not in all of them
            changed, wait = LIMIT | {"limit": 101 + number}, {"Prefer": "wait=12"}
            with files_entered() as files:
                answer = await served.admin.put("/v1/plans/pro/limits/hourly", json=changed, headers=wait)
            assert answer.headers["preference-applied"] == "wait"
            seen.append({file for file in files if file.startswith("control_plane/") and not file.startswith(FLOOR)})
    page = {step.file for step in steps_of("Config") if Path(step.file).parts[0] == "control_plane"}
    through = set.intersection(*seen)
    assert through == page, sorted(through ^ page)
