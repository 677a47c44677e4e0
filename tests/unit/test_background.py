"""Background work of both planes: a fault in it is loud, and it goes on."""

import asyncio

import pytest
from structlog.testing import capture_logs

import control_plane.app
import data_plane.process


@pytest.mark.parametrize("plane", [control_plane.app, data_plane.process], ids=["control", "data"])
async def test_what_a_fault_ended_begins_anew_until_it_is_cancelled(plane):
    began, goes_on = 0, asyncio.Event()

    async def work() -> None:
        nonlocal began
        began += 1
        if began < 3:
            raise RuntimeError("a bug")
        goes_on.set()
        await asyncio.Event().wait()

    with capture_logs() as lines:
        task = asyncio.create_task(plane.run_forever(work, again_after_s=0))
        await goes_on.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert began == 3
    assert [(line["event"], line["log_level"]) for line in lines] == [("background_work_died", "error")] * 2
    assert "work" in lines[0]["work"]
    assert str(lines[0]["exc_info"]) == "a bug"
