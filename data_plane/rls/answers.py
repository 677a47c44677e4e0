"""Results as Envoy reads them: overall code, a status for each descriptor, headers and the body of a denial."""

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
    """The message that answers a request whose descriptors came out as ``results``."""
    denied = [result for result in results if not result.allowed]
    told = RateLimitResponse(
        overall_code=OVER_LIMIT if denied else OK, statuses=[_status(result) for result in results]
    )
    answer = _answer(renderer, _most_telling(denied or results), request_id)
    told.response_headers_to_add.extend(HeaderValue(key=name, value=value) for name, value in _lines(answer.headers))
    if denied:
        told.raw_body = answer.body
    return _bytes(told)


def malformed(message: str, descriptors: int) -> bytes:
    """The message that refuses of what an end client has sent wrong: gateways know no other than over the limit."""
    answer = problem(403, message, error="malformed_request", message=message)
    status = DescriptorStatus(code=OVER_LIMIT)
    told = RateLimitResponse(overall_code=OVER_LIMIT, statuses=[status] * descriptors, raw_body=answer.body)
    told.response_headers_to_add.extend(HeaderValue(key=name, value=value) for name, value in _lines(answer.headers))
    return _bytes(told)


def current_limit(limit: ResolvedLimit) -> Any:
    """A limit as Envoy has it: so many in a unit of time."""
    rule = limit.rule
    unit = CALENDAR.get(rule.calendar or "", UNITS.get(limit.window_s, UNKNOWN_UNIT))
    return RateLimit(name=rule.name, requests_per_unit=min(rule.limit, MAX_UINT32), unit=unit)


def _bytes(message: Any) -> bytes:
    encoded: bytes = message.SerializeToString()
    return encoded


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


def _status(result: Result) -> Any:
    told = result.answer
    status = DescriptorStatus(code=OK if result.allowed else OVER_LIMIT)
    if not isinstance(told, Verdict) or told.shown is None:
        return status
    limit, outcome = told.check.bound.limits[told.shown], told.outcomes[told.shown]
    if not limit.visible and told.allowed:
        return status
    status.current_limit.CopyFrom(current_limit(limit))
    status.limit_remaining = min(max(0, outcome.remaining), MAX_UINT32)
    wait_us = outcome.reset_us if told.allowed or outcome.retry_us == NEVER else outcome.retry_us
    status.duration_until_reset.seconds = ceil_s(wait_us)
    return status


def _lines(block: bytes) -> Iterator[tuple[str, str]]:
    for line in block.decode("ascii").split("\r\n"):
        name, separator, value = line.partition(": ")
        if separator:
            yield name, value
