"""Results in Envoy's messages: an overall code, a status for each descriptor, headers, and the body of a denial."""

from collections.abc import Iterator, Sequence
from typing import Any

from data_plane.config.limit_resolution import ResolvedLimit
from data_plane.decide.pending_check import Refusal, Verdict
from data_plane.http.answers import Answer, problem
from data_plane.http.rate_limit_headers import ceil_s
from data_plane.http.render import Renderer, not_understood
from data_plane.rls.deciding import Result
from data_plane.rls.messages import (
    DAY,
    HOUR,
    MINUTE,
    MONTH,
    OK,
    OVER_LIMIT,
    SECOND,
    UNKNOWN_UNIT,
    WEEK,
    DescriptorStatus,
    HeaderValue,
    RateLimit,
    RateLimitResponse,
)
from data_plane.store.packing import NEVER

MAX_UINT32 = 2**32 - 1
UNITS: dict[float, int] = {1: SECOND, 60: MINUTE, 3600: HOUR, 86_400: DAY, 604_800: WEEK}
CALENDAR = {"minute": MINUTE, "hour": HOUR, "day": DAY, "week": WEEK, "month": MONTH}


def response(renderer: Renderer, results: Sequence[Result], request_id: str) -> bytes:
    """The response to a request whose descriptors have these results."""
    denied = [result for result in results if not result.allowed]
    message = RateLimitResponse(
        overall_code=OVER_LIMIT if denied else OK, statuses=[_status(result) for result in results]
    )
    answer = _answer(renderer, _result_to_show(denied or results), request_id)
    message.response_headers_to_add.extend(HeaderValue(key=name, value=value) for name, value in _lines(answer.headers))
    if denied:
        message.raw_body = answer.body
    return _bytes(message)


def malformed(error: str, descriptors: int) -> bytes:
    """The response to a malformed value of an end client: over the limit, as gateways know no other refusal."""
    answer = problem(403, error, error="malformed_request", message=error)
    status = DescriptorStatus(code=OVER_LIMIT)
    message = RateLimitResponse(overall_code=OVER_LIMIT, statuses=[status] * descriptors, raw_body=answer.body)
    message.response_headers_to_add.extend(HeaderValue(key=name, value=value) for name, value in _lines(answer.headers))
    return _bytes(message)


def current_limit(limit: ResolvedLimit) -> Any:
    """A limit in Envoy's form: requests per unit of time."""
    rule = limit.rule
    unit = CALENDAR.get(rule.calendar or "", UNITS.get(limit.window_s, UNKNOWN_UNIT))
    return RateLimit(name=rule.name, requests_per_unit=min(rule.limit, MAX_UINT32), unit=unit)


def _bytes(message: Any) -> bytes:
    encoded: bytes = message.SerializeToString()
    return encoded


def _answer(renderer: Renderer, result: Result, request_id: str) -> Answer:
    answer = result.answer
    if isinstance(answer, Verdict | Refusal):
        return renderer.authorize(answer, request_id, result.now_us)
    message = not_understood(answer).detail
    return problem(403, message, instance=request_id, error="malformed_request", message=message)


def _result_to_show(results: Sequence[Result]) -> Result:
    """The result to show: a refusal, else the denial with the longest wait, else the first with a limit."""
    return max(results, key=_weight)


def _weight(result: Result) -> float:
    verdict = result.answer
    if not isinstance(verdict, Verdict):
        return float("inf")
    if verdict.shed_s:
        return verdict.shed_s * 1_000_000
    if verdict.shown is None:
        return -1
    if verdict.allowed:
        return 0
    retry_us = verdict.outcomes[verdict.shown].retry_us
    return float("inf") if retry_us == NEVER else float(retry_us)


def _status(result: Result) -> Any:
    verdict = result.answer
    status = DescriptorStatus(code=OK if result.allowed else OVER_LIMIT)
    if not isinstance(verdict, Verdict) or verdict.shown is None:
        return status
    limit, outcome = verdict.check.limit_set.limits[verdict.shown], verdict.outcomes[verdict.shown]
    if not limit.visible and verdict.allowed:
        return status
    status.current_limit.CopyFrom(current_limit(limit))
    status.limit_remaining = min(max(0, outcome.remaining), MAX_UINT32)
    wait_us = outcome.reset_us if verdict.allowed or outcome.retry_us == NEVER else outcome.retry_us
    status.duration_until_reset.seconds = ceil_s(wait_us)
    return status


def _lines(block: bytes) -> Iterator[tuple[str, str]]:
    for line in block.decode("ascii").split("\r\n"):
        name, separator, value = line.partition(": ")
        if separator:
            yield name, value
