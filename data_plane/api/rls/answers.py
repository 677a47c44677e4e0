"""Results as Envoy reads them: overall code, a status for each descriptor, headers and the body of a denial."""

from collections.abc import Iterator, Sequence
from typing import Any

from envoy.config.core.v3.base_pb2 import HeaderValue
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitResponse

from data_plane.api.answers import Answer, problem
from data_plane.api.rate_limit_headers import ceil_s
from data_plane.api.render import Renderer, not_understood
from data_plane.api.rls.deciding import Result
from data_plane.domain.check import Refusal, Verdict
from data_plane.domain.outcome import NEVER

OK, OVER_LIMIT = RateLimitResponse.OK, RateLimitResponse.OVER_LIMIT
MAX_UINT32 = 2**32 - 1
_Unit = RateLimitResponse.RateLimit
UNITS: dict[float, Any] = {
    1: _Unit.SECOND, 60: _Unit.MINUTE, 3600: _Unit.HOUR, 86_400: _Unit.DAY, 604_800: _Unit.WEEK,
}  # fmt: skip
CALENDAR = {
    "minute": _Unit.MINUTE, "hour": _Unit.HOUR, "day": _Unit.DAY, "week": _Unit.WEEK, "month": _Unit.MONTH,
}  # fmt: skip


def response(renderer: Renderer, results: Sequence[Result], request_id: str) -> RateLimitResponse:
    """The answer to a request whose descriptors came out as ``results``."""
    denied = [result for result in results if not result.allowed]
    told = RateLimitResponse(
        overall_code=OVER_LIMIT if denied else OK, statuses=[_status(result) for result in results]
    )
    answer = _answer(renderer, _most_telling(denied or results), request_id)
    told.response_headers_to_add.extend(HeaderValue(key=name, value=value) for name, value in _lines(answer.headers))
    if denied:
        told.raw_body = answer.body
    return told


def malformed(message: str, descriptors: int) -> RateLimitResponse:
    """The refusal of what an end client has sent wrong: gateways know no other than over the limit."""
    answer = problem(403, message, error="malformed_request", message=message)
    status = RateLimitResponse.DescriptorStatus(code=OVER_LIMIT)
    told = RateLimitResponse(overall_code=OVER_LIMIT, statuses=[status] * descriptors, raw_body=answer.body)
    told.response_headers_to_add.extend(HeaderValue(key=name, value=value) for name, value in _lines(answer.headers))
    return told


def _answer(renderer: Renderer, result: Result, request_id: str) -> Answer:
    told = result.answer
    if isinstance(told, Verdict | Refusal):
        return renderer.authorize(told, request_id, result.now_us)
    message = not_understood(told).detail
    return problem(403, message, instance=request_id, error="malformed_request", message=message)


def _most_telling(results: Sequence[Result]) -> Result:
    """Of denials the one with the longest wait, a refusal before all; else the first that some limit applied to."""
    return max(results, key=_weight)


def _weight(result: Result) -> float:
    told = result.answer
    if not isinstance(told, Verdict):
        return float("inf")
    if told.shed_s:
        return told.shed_s * 1_000_000
    if told.shown is None:
        return -1
    if told.allowed:
        return 0
    retry_us = told.outcomes[told.shown].retry_us
    return float("inf") if retry_us == NEVER else float(retry_us)


def _status(result: Result) -> RateLimitResponse.DescriptorStatus:
    told = result.answer
    status = RateLimitResponse.DescriptorStatus(code=OK if result.allowed else OVER_LIMIT)
    if not isinstance(told, Verdict) or told.shown is None:
        return status
    limit, outcome = told.prepared.bound.limits[told.shown], told.outcomes[told.shown]
    if not limit.visible and told.allowed:
        return status
    rule = limit.rule
    unit = CALENDAR.get(rule.calendar or "", UNITS.get(limit.window_s, _Unit.UNKNOWN))
    status.current_limit.CopyFrom(
        RateLimitResponse.RateLimit(name=rule.name, requests_per_unit=min(rule.limit, MAX_UINT32), unit=unit)
    )
    status.limit_remaining = min(max(0, outcome.remaining), MAX_UINT32)
    wait_us = outcome.reset_us if told.allowed or outcome.retry_us == NEVER else outcome.retry_us
    status.duration_until_reset.seconds = ceil_s(wait_us)
    return status


def _lines(block: bytes) -> Iterator[tuple[str, str]]:
    for line in block.decode("ascii").split("\r\n"):
        name, separator, value = line.partition(": ")
        if separator:
            yield name, value
