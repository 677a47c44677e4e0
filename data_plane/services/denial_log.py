"""A sample of denials for the log, so that the request id in an answer can be looked up: who, by which limit, where.

No key, no path and no query is in it: a client is named by its name, an anonymous caller by its address.
"""

from typing import Any

import structlog

from contract.causes import Cause
from contract.denials import RepeatedDenial
from data_plane.domain.causes import cause_of_denial, cause_of_refusal
from data_plane.domain.check import Prepared, Refusal, Verdict
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
        if not verdict.allowed and self._has_room(now_us):
            self._log(getattr(check, "request_id", None), cause_of_denial(verdict), _about(check, verdict))

    def refused(self, check: Check, refusal: Refusal) -> None:
        """A check was turned away before any limit was looked at: blocked, say."""
        if self._has_room(check.asked_us):
            cause = cause_of_refusal(refusal)
            self._log(getattr(check, "request_id", None), cause, _about_refused(check, refusal, cause))

    def repeated(self, prepared: Prepared, denial: RepeatedDenial, revision: int, now_us: int) -> None:
        """A client library denied these ``requests`` from memory."""
        if not self._has_room(now_us):
            return
        principal = prepared.principal
        about: dict[str, Any] = {
            "policies": () if denial.policy is None else (denial.policy,),
            "client": None if principal is None else principal.client.client,
            "endpoint": prepared.bound.endpoint,
            "revision": revision,
            "requests": denial.requests,
        }
        if principal is None:
            about["address"] = denial.ip
        self._log(None, denial.cause, about)

    def _has_room(self, now_us: int) -> bool:
        passed_s = max(0, now_us - self._at_us) / 1_000_000
        self._at_us = now_us
        self._room = min(max(1.0, self._per_second), self._room + passed_s * self._per_second)
        if self._room < 1:
            self.left_out += 1
            self._left_out_since += 1
            return False
        self._room -= 1
        self.logged += 1
        return True

    def _log(self, request_id: str | None, cause: Cause, about: dict[str, Any]) -> None:
        if self._left_out_since:
            about["left_out"] = self._left_out_since
            self._left_out_since = 0
        log.info("denied", request_id=request_id, cause=cause, **about)


def _about(check: Check, verdict: Verdict) -> dict[str, Any]:
    principal = check.principal
    shown = None if verdict.shown is None else verdict.outcomes[verdict.shown]
    about: dict[str, Any] = {
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
    return about


def _about_refused(check: Check, refusal: Refusal, cause: Cause) -> dict[str, Any]:
    request, index = check.request, check.decider.index
    if request.client is not None:
        principal = index.clients.get(request.client)
    else:
        principal = None if request.api_key is None else index.principal_of(request.api_key, check.asked_us)
    about: dict[str, Any] = {
        "client": None if principal is None else principal.client.client,
        "endpoint": request.endpoint,
        "revision": check.revision,
    }
    if cause == "blocked":
        about["reason_class"] = refusal.value.removeprefix("blocked_")
    if principal is None or cause == "blocked":
        about["address"] = request.ip
    return about
