"""The careful code: renders verdicts and refusals as answers, for the JSON endpoints and for forward-auth."""

from typing import Any

import msgspec

from data_plane.decide.check_resolution import UnknownNameError
from data_plane.decide.pending_check import PendingCheck, Refusal, Verdict, cause_of_denial, cause_of_refusal, conclude
from data_plane.http.answers import JSON_TYPE, PROBLEM_TYPE, Answer, FieldError, InputError, problem, problem_body
from data_plane.http.forward_auth import RefusedInputError
from data_plane.http.rate_limit_headers import ResetFormat, ceil_s, header_block, header_lines
from data_plane.http.response_templates import (
    MAX_DENIAL_TEMPLATES,
    DenialTemplate,
    ResponseTemplate,
    has_template,
    with_blanks,
)
from data_plane.store.packing import NEVER, UNKNOWN, Outcome
from data_plane.store.subjects import InvalidAddressError
from tidegate.contract.decision import Cause, CheckRequest, Decision, LimitCause, LimitReport

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
REDUCED_CAPACITY = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"

_REFUSALS = {
    Refusal.MISSING_KEY: (401, "an API key is required"),
    Refusal.UNKNOWN_KEY: (401, "the API key is unknown, revoked or expired"),
    Refusal.SUSPENDED: (403, "this client is suspended"),
}
_BLOCKED = "blocked"
_WWW_AUTHENTICATE = b"www-authenticate: ApiKey\r\n"
_encode = msgspec.json.Encoder().encode


class Denial(Decision, frozen=True, kw_only=True, rename={"violated_policies": "violated-policies"}):
    """A decision that denies, which is also an RFC 9457 problem."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    violated_policies: tuple[str, ...]
    error: str
    cause: Cause
    message: str
    retry_after: int | None


class EndUserDenial(msgspec.Struct, frozen=True, kw_only=True, rename={"violated_policies": "violated-policies"}):
    """The members of a denial that may reach an end user."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    violated_policies: tuple[str, ...]
    error: str
    cause: Cause
    message: str
    retry_after: int | None


class Renderer:
    """Knows the region's name and the header style; the revision comes with each call."""

    def __init__(self, region: str, reset_format: ResetFormat) -> None:
        self._region = region
        self._reset_format = reset_format

    def template(self, check: PendingCheck) -> ResponseTemplate:
        """What answers checks of these limits that are plainly allowed; made once, and kept with the limits."""
        template: ResponseTemplate | None = check.limit_set.template
        if template is None:
            limit_set = check.limit_set
            verdict = conclude(check, [Outcome(True, 0, 0, 0, 0)] * len(limit_set.limits))
            headers, _ = header_lines(verdict, 0, self._reset_format)
            decision = self._decision(verdict, 0, "", explain=False)
            template = limit_set.template = ResponseTemplate(limit_set, headers, decision, self._reset_format)
        return template

    def check(
        self, result: Verdict | Refusal, request: CheckRequest, revision: int, request_id: str, now_us: int
    ) -> Answer:
        """The answer of ``/v1/check``: 200 or 429 with the decision, 401 or 403 for a refusal."""
        if isinstance(result, Refusal):
            return refused(result, request_id)
        if not (result.allowed or request.explain or request.request_id is not None):
            template = self._denial_template(result)
            if template is not None:
                return template.filled(result, revision, request_id, now_us)
        return self.careful_check(result, revision, request_id, now_us, explain=request.explain)

    def authorize(self, result: Verdict | Refusal, request_id: str, now_us: int) -> Answer:
        """The answer of forward-auth: an empty 200, or a problem for the end user."""
        if isinstance(result, Refusal):
            return refused(result, request_id)
        if not result.allowed:
            template = self._denial_template(result, for_end_user=True)
            if template is not None:
                return template.filled(result, 0, request_id, now_us)
        return self.careful_authorize(result, 0, request_id, now_us)

    def _denial_template(self, verdict: Verdict, *, for_end_user: bool = False) -> DenialTemplate | None:
        """What answers such denials, made once and kept with the limits; ``None`` where there can be none."""
        if not has_template(verdict):
            return None
        limit_set = verdict.check.limit_set
        templates: dict[Any, DenialTemplate] = limit_set.denial_templates
        key = for_end_user, verdict.shown, verdict.violated
        template = templates.get(key)
        if template is None and len(templates) < MAX_DENIAL_TEMPLATES:
            denial = _denial(verdict, "")
            blanks = {"detail": f'"{_detail(denial["message"], "%d")}"', "instance": '"%b"', "retry_after": "%d"}
            if for_end_user:
                body = with_blanks(EndUserDenial(**denial), **blanks)
            else:
                decision = self._decision(verdict, 0, "", explain=False)
                body = with_blanks(
                    decision, client="%b", reset_after_s="%d.%06d", retry_after_s="%d.%06d", revision="%d",
                    request_id='"%b"', **blanks,
                )  # fmt: skip
            headers, _ = header_lines(verdict, 0, self._reset_format)
            template = templates[key] = DenialTemplate(
                limit_set, headers, body, self._reset_format, for_end_user=for_end_user
            )
        return template

    def careful_check(
        self, verdict: Verdict, revision: int, request_id: str, now_us: int, *, explain: bool = False
    ) -> Answer:
        """As ``check`` answers a verdict, without a template."""
        headers = header_block(verdict, now_us, self._reset_format)
        body = _encode(self._decision(verdict, revision, request_id, explain=explain))
        return Answer(200, JSON_TYPE + headers, body) if verdict.allowed else Answer(429, PROBLEM_TYPE + headers, body)

    def careful_authorize(self, verdict: Verdict, _revision: int, request_id: str, now_us: int) -> Answer:
        """As ``authorize`` answers a verdict, without a template."""
        headers = header_block(verdict, now_us, self._reset_format)
        if verdict.allowed:
            return Answer(200, headers, b"")
        return Answer(429, PROBLEM_TYPE + headers, _encode(EndUserDenial(**_denial(verdict, request_id))))

    def batch_item(self, result: Verdict | Refusal, request: CheckRequest, revision: int, request_id: str) -> bytes:
        """The JSON of a decision or a refusal alone, for a batch."""
        if isinstance(result, Refusal):
            return refused(result, request_id).body
        if not result.allowed:
            return self.check(result, request, revision, request_id, 0).body
        return _encode(self._decision(result, revision, request_id, explain=request.explain))

    def _decision(self, verdict: Verdict, revision: int, request_id: str, *, explain: bool) -> Decision:
        principal = verdict.check.principal
        client = principal.client.client if principal is not None else None
        limits = _reports(verdict) if explain else msgspec.UNSET
        if verdict.shed_s:
            return Denial(
                allowed=False, client=client, plan=verdict.check.plan, policy=verdict.violated[0], limit=None,
                window_s=None, remaining=None, reset_after_s=None, retry_after_s=float(verdict.shed_s), delay_ms=0,
                shadow_denied=(), degraded=False, region=self._region, revision=revision, request_id=request_id,
                limits=limits, **_denial(verdict, request_id),
            )  # fmt: skip
        at = verdict.shown
        if at is None:
            return Decision(
                allowed=True, client=client, plan=verdict.check.plan, policy=None, limit=None, window_s=None,
                remaining=None, reset_after_s=None, retry_after_s=None, delay_ms=0, shadow_denied=(),
                degraded=verdict.degraded, region=self._region, revision=revision, request_id=request_id,
                limits=limits,
            )  # fmt: skip
        limit, outcome = verdict.check.limit_set.limits[at], verdict.outcomes[at]
        if verdict.allowed:
            return Decision(
                allowed=True, client=client, plan=verdict.check.plan, policy=limit.rule.name,
                limit=limit.rule.limit, window_s=limit.window_s, remaining=outcome.remaining,
                reset_after_s=outcome.reset_us / 1_000_000, retry_after_s=None, delay_ms=_delay_ms(verdict),
                shadow_denied=verdict.shadow_denied, degraded=verdict.degraded, region=self._region,
                revision=revision, request_id=request_id, limits=limits,
            )  # fmt: skip
        return Denial(
            allowed=False, client=client, plan=verdict.check.plan, policy=limit.rule.name,
            limit=limit.rule.limit, window_s=limit.window_s, remaining=_known(outcome.remaining),
            reset_after_s=outcome.reset_us / 1_000_000,
            retry_after_s=None if outcome.retry_us == NEVER else outcome.retry_us / 1_000_000, delay_ms=0,
            shadow_denied=verdict.shadow_denied, degraded=verdict.degraded, region=self._region,
            revision=revision, request_id=request_id, limits=limits, **_denial(verdict, request_id),
        )  # fmt: skip


def _delay_ms(verdict: Verdict) -> float:
    """The longest turn among the queues that the request waits in."""
    if not verdict.check.limit_set.has_queue:
        return 0
    return max([outcome.delay_us for outcome in verdict.outcomes]) / 1_000


def refused(refusal: Refusal, request_id: str) -> Answer:
    """401 or 403 with the reason: no limit was looked at."""
    cause = cause_of_refusal(refusal)
    if cause == _BLOCKED:
        message = "this caller or this endpoint is blocked"
        reason_class = refusal.value.removeprefix("blocked_")
        return problem(
            403, message, instance=request_id, allowed=False, error=_BLOCKED, cause=cause, message=message,
            reason_class=reason_class,
        )  # fmt: skip
    status, message = _REFUSALS[refusal]
    return _refusal(status, message, instance=request_id, allowed=False, error=refusal.value, cause=cause)


def refused_input(error: RefusedInputError) -> Answer:
    """401 or 403 for malformed input of an end client."""
    return _refusal(error.status, error.message, error=error.error)


def _refusal(status: int, message: str, **members: Any) -> Answer:
    answer = problem(status, message, **members, message=message)
    if status != 401:
        return answer
    return msgspec.structs.replace(answer, headers=answer.headers + _WWW_AUTHENTICATE)


def not_understood(error: UnknownNameError | InvalidAddressError) -> InputError:
    """The 422 for an unknown name or an invalid address."""
    if isinstance(error, UnknownNameError):
        return InputError(422, str(error), [FieldError(error.field, str(error))])
    return InputError(422, "ip is not an IP address", [FieldError("ip", "must be an IPv4 or IPv6 address, no zone")])


def batch_item_error(error: InputError) -> dict[str, Any]:
    """A bad item's place in a batch's answer."""
    return {"error": problem_body(error.status, error.detail, error.errors)}


def _denial(verdict: Verdict, request_id: str) -> dict[str, Any]:
    """A denial as the members of a problem."""
    cause = cause_of_denial(verdict)
    retry_us = verdict.shed_s * 1_000_000 or verdict.outcomes[verdict.shown or 0].retry_us
    retry_after = None if retry_us == NEVER else ceil_s(retry_us)
    message = _message(verdict, cause)
    reduced = cause == "reduced_capacity"
    return {
        "type": REDUCED_CAPACITY if reduced else QUOTA_EXCEEDED,
        "title": "Temporary Reduced Capacity" if reduced else "Too Many Requests", "status": 429,
        "detail": message if retry_after is None else _detail(message, retry_after),
        "instance": request_id, "violated_policies": verdict.violated, "error": "rate_limit_exceeded",
        "cause": cause, "message": message, "retry_after": retry_after,
    }  # fmt: skip


def _detail(message: str, retry_after: int | str) -> str:
    return f"{message} Try again in {retry_after} s."


_OF_HIDDEN: dict[LimitCause, str] = {
    "used_up": "The service is at its limit.",
    "too_few_left": "The service is at its limit.",
    "cost_above_limit": "The cost is above what a limit can ever hold.",
    "cannot_decide": "This cannot be decided now.",
    "reduced_capacity": "The service takes fewer requests for the moment.",
}
"""Messages about limits that are hidden from callers."""


def _message(verdict: Verdict, cause: LimitCause) -> str:
    check, at = verdict.check, verdict.shown
    if cause == "reduced_capacity" or at is None or not check.limit_set.limits[at].visible:
        return _OF_HIDDEN[cause]
    limit = check.limit_set.limits[at]
    window = limit.rule.calendar or f"{limit.window_s:g} s"
    name = f"Limit {limit.rule.name!r} of {limit.rule.limit} per {window}"
    match cause:
        case "cost_above_limit" if not check.cost:
            return f"{name} lets nothing pass here."
        case "cost_above_limit":
            return f"The cost of {check.cost} is above what limit {limit.rule.name!r} can ever hold."
        case "cannot_decide":
            return f"{name} cannot be decided now."
        case "too_few_left":
            return f"{name} has {verdict.outcomes[at].remaining} left, {check.cost} asked."
        case "used_up":
            return f"{name} is used up."


def _known(remaining: int) -> int | None:
    return None if remaining == UNKNOWN else remaining


def _reports(verdict: Verdict) -> tuple[LimitReport, ...]:
    return tuple(
        LimitReport(
            policy=limit.rule.name, scope=limit.rule.scope, limit=limit.rule.limit, window_s=limit.window_s,
            remaining=_known(outcome.remaining), reset_after_s=outcome.reset_us / 1_000_000,
            retry_after_s=None if outcome.allowed or outcome.retry_us == NEVER else outcome.retry_us / 1_000_000,
            allowed=outcome.allowed, shadow=limit.rule.shadow,
        )
        # a shed request has no outcomes
        for limit, outcome in zip(verdict.check.limit_set.limits, verdict.outcomes, strict=not verdict.shed_s)
    )  # fmt: skip
