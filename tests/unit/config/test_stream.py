"""What the log says of a control plane that cannot be reached."""

from structlog.testing import capture_logs

from data_plane.config import stream as stream_module
from data_plane.config.stream import LOG_AGAIN_S, ControlPlaneStream


async def test_trouble_that_stays_the_same_is_said_again_every_minute(monkeypatch):
    now_s = 1_000.0
    monkeypatch.setattr(stream_module.time, "monotonic", lambda: now_s)
    stream = ControlPlaneStream("http://control-plane", "tgr_x", "n", "r", "1", None, None, None)
    with capture_logs() as said:
        for error in ("away", "away", "refused"):
            stream.note_failure(error)
        now_s += LOG_AGAIN_S
        stream.note_failure("refused")
        stream.note_failure("refused")
    assert [line["error"] for line in said] == ["away", "refused", "refused"]
