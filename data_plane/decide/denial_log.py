"""Takes every denial of a node: all go to the region's ring, a sample to the log. Both find a denial by its request id.

No key, no path and no query is in the log: a client is named by its name, an anonymous caller by its address.
"""

from typing import Any

import structlog

from data_plane.config.index import Principal, RuleIndex
from data_plane.decide.denial_ring import DenialRing
from data_plane.decide.pending_check import PendingCheck, Refusal, Verdict, cause_of_denial, cause_of_refusal
from tidegate.contract.decision import Cause, CheckRequest
from tidegate.contract.denials import RepeatedDenial

log = structlog.get_logger("tidegate.denials")


class DenialLog:
    """Logs at most ``per_second`` denials a second; the next line says how many were left out in between.

    ``ring`` takes every denial but those of cost 0: these checks only look.
    """

    def __init__(self, per_second: float, ring: DenialRing | None = None) -> None:
        self._per_second = per_second
        self._ring = ring
        self._room = per_second
        self._at_us = 0
        self.logged = 0
        self.left_out = 0
        self._left_out_since = 0

    def concluded(self, check: PendingCheck, verdict: Verdict, now_us: int) -> None:
        """Take the verdict of a check that was not plainly allowed."""
        if verdict.allowed:
            return
        request = check.request
        if self._ring is not None and request.cost:
            self._ring.note(now_us, check.principal, request, check.request_id, check.revision, verdict)
        if self._has_room(now_us):
            self._log(check.request_id, cause_of_denial(verdict), _about(check, verdict))

    def refused(self, check: PendingCheck, refusal: Refusal) -> None:
        """Take a check that was refused before any limit applied, for example by a block."""
        request = check.request
        if self._ring is not None and request.cost:
            principal = _principal(check.decider.index, request)
            self._ring.note(check.asked_us, principal, request, check.request_id, check.revision, refusal)
        if self._has_room(check.asked_us):
            cause = cause_of_refusal(refusal)
            self._log(check.request_id, cause, _about_refused(check, refusal, cause))

    def not_held(
        self, request: CheckRequest, request_id: str, index: RuleIndex, revision: int, result: Verdict | Refusal,
        now_us: int,
    ) -> None:  # fmt: skip
        """Take a denied lease or reservation: it goes to the ring alone."""
        if self._ring is not None:
            principal = _principal(index, request)
            self._ring.note(now_us, principal, request, request_id, revision, result)

    def repeated(self, check: PendingCheck, denial: RepeatedDenial, revision: int, now_us: int) -> None:
        """Take requests that a client library denied from its own memory."""
        if self._ring is not None:
            request = CheckRequest(
                api_key=denial.api_key, ip=denial.ip, endpoint=denial.endpoint,
                cost=max(1, denial.cost // denial.requests),
            )  # fmt: skip
            self._ring.note(
                now_us, check.principal, request, None, revision, denial.cause, check.limit_set.endpoint, denial.policy,
                denial.requests,
            )  # fmt: skip
        if not self._has_room(now_us):
            return
        principal = check.principal
        about: dict[str, Any] = {
            "policies": () if denial.policy is None else (denial.policy,),
            "client": None if principal is None else principal.client.client,
            "endpoint": check.limit_set.endpoint,
            "revision": revision,
            "requests": denial.requests,
        }
        if principal is None:
            about["address"] = denial.ip
        self._log(None, denial.cause, about)

    def _has_room(self, now_us: int) -> bool:
        if not self._per_second:
            return False
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


def _principal(index: RuleIndex, request: CheckRequest) -> Principal | None:
    """The client of a request that was just resolved: one lookup finds it."""
    return index.known.get(request.api_key) if request.client is None else index.named.get(request.client)


def _about(check: PendingCheck, verdict: Verdict) -> dict[str, Any]:
    principal = check.principal
    shown = None if verdict.shown is None else verdict.outcomes[verdict.shown]
    about: dict[str, Any] = {
        "policies": verdict.violated,
        "client": None if principal is None else principal.client.client,
        "endpoint": check.limit_set.endpoint,
        "revision": check.revision,
        "degraded": verdict.degraded,
    }
    if principal is None:
        about["address"] = check.request.ip
    if shown is not None and shown.retry_us > 0:
        about["retry_after_s"] = shown.retry_us / 1_000_000
    return about


def _about_refused(check: PendingCheck, refusal: Refusal, cause: Cause) -> dict[str, Any]:
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
