"""A sample of denials for the log, so that the request id in an answer can be looked up: who, by which limit, where.

No key, no path and no query is in it: a client is named by its name, an anonymous caller by its address.
"""

from typing import Any

import structlog

from data_plane.domain.check import Verdict
from data_plane.services.decide import Check

log = structlog.get_logger("tidegate.denials")


class DenialLog:
    """Logs at most ``per_second`` denials a second; the next line says how many were left out in between."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._room = per_second
        self._at_us = 0
        self.logged = 0
        self.left_out = 0
        self._left_out_since = 0

    def concluded(self, check: Check, verdict: Verdict, now_us: int) -> None:
        """A check was concluded that was not plainly allowed."""
        if verdict.allowed:
            return
        passed_s = max(0, now_us - self._at_us) / 1_000_000
        self._at_us = now_us
        self._room = min(max(1.0, self._per_second), self._room + passed_s * self._per_second)
        if self._room < 1:
            self.left_out += 1
            self._left_out_since += 1
            return
        self._room -= 1
        self.logged += 1
        log.info("denied", **self._about(check, verdict))
        self._left_out_since = 0

    def _about(self, check: Check, verdict: Verdict) -> dict[str, Any]:
        principal = check.principal
        shown = None if verdict.shown is None else verdict.outcomes[verdict.shown]
        about: dict[str, Any] = {
            "request_id": getattr(check, "request_id", None),
            "policies": verdict.violated,
            "client": None if principal is None else principal.client.client,
            "endpoint": check.bound.endpoint,
            "revision": check.revision,
            "degraded": verdict.degraded,
        }
        if principal is None:
            about["address"] = check.request.ip
        if shown is not None and shown.retry_us > 0:
            about["retry_after_s"] = shown.retry_us / 1_000_000
        if self._left_out_since:
            about["left_out"] = self._left_out_since
        return about
