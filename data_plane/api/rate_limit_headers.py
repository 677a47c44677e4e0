"""Rate limit headers: ``X-RateLimit-*`` of the headline limit and the IETF pair of every visible one.

The IETF fields follow draft-ietf-httpapi-ratelimit-headers-11.
"""

from functools import lru_cache
from typing import Literal, NamedTuple

from data_plane.domain.bindings import BoundLimit
from data_plane.domain.check import Verdict
from data_plane.domain.outcome import NEVER, Outcome
from data_plane.domain.rulebook import Bound

ResetFormat = Literal["epoch", "delta"]


class _Template(NamedTuple):
    """The header lines of an allowed decision, with a place for each figure."""

    headline: bytes
    """Remaining and reset of the headline limit; empty where clients do not see it."""
    pairs: bytes
    """Remaining and time to reset of every visible limit, in order."""
    visible: tuple[int, ...]


def header_block(verdict: Verdict, now_us: int, reset_format: ResetFormat) -> bytes:
    """The header lines of a decision, each ended by CRLF; empty when no limit applied.

    ``now_us`` is the node's clock: ``X-RateLimit-Reset`` in epoch seconds needs one.
    """
    at = verdict.shown
    if at is None:
        return b""
    begin_us = now_us if reset_format == "epoch" else 0
    if not verdict.allowed:
        return _denied(verdict, at, begin_us)
    template = _template(verdict.prepared.bound)
    outcomes = verdict.outcomes
    lines = b""
    if template.headline:
        shown = outcomes[at]
        lines = template.headline % (shown.remaining, ceil_s(begin_us + shown.reset_us))
    if template.pairs:
        figures: list[int] = []
        for position in template.visible:
            outcome = outcomes[position]
            figures += (outcome.remaining, -(-outcome.reset_us // 1_000_000))
        lines += template.pairs % tuple(figures)
    return lines


def ceil_s(us: int) -> int:
    """Microseconds as whole seconds, rounded up."""
    return -(-us // 1_000_000)


@lru_cache(maxsize=4_096)
def _template(bound: Bound) -> _Template:
    headline = bound.limits[bound.headline]
    visible = tuple(at for at, limit in enumerate(bound.limits) if limit.visible)
    first = _headline(headline, b"%d", b"%d") if headline.visible else b""
    states = ", ".join(f'"{bound.limits[at].rule.name}";r=%d;t=%d' for at in visible)
    return _Template(first, _pairs(bound, states) if visible else b"", visible)


def _denied(verdict: Verdict, at: int, begin_us: int) -> bytes:
    bound, outcome = verdict.prepared.bound, verdict.outcomes[at]
    reset_us = outcome.reset_us if outcome.retry_us == NEVER else outcome.retry_us
    lines = _headline(bound.limits[at], b"%d" % outcome.remaining, b"%d" % ceil_s(begin_us + reset_us))
    if bound.policies:
        every = zip(bound.limits, verdict.outcomes, strict=True)
        lines += _pairs(bound, ", ".join([_state(limit, one) for limit, one in every if limit.visible]))
    if outcome.retry_us != NEVER:
        lines += b"retry-after: %d\r\n" % ceil_s(outcome.retry_us)
    return lines


def _headline(limit: BoundLimit, remaining: bytes, reset: bytes) -> bytes:
    return b"x-ratelimit-limit: %d\r\nx-ratelimit-remaining: %b\r\nx-ratelimit-reset: %b\r\n" % (
        limit.rule.limit,
        remaining,
        reset,
    )


def _pairs(bound: Bound, states: str) -> bytes:
    return f"ratelimit-policy: {bound.policies}\r\nratelimit: {states}\r\n".encode("ascii")


def _state(limit: BoundLimit, outcome: Outcome) -> str:
    if outcome.allowed or limit.rule.shadow:
        return f'"{limit.rule.name}";r={outcome.remaining};t={ceil_s(outcome.reset_us)}'
    if outcome.retry_us == NEVER:
        return f'"{limit.rule.name}";r={outcome.remaining}'
    return f'"{limit.rule.name}";r={outcome.remaining};t={ceil_s(outcome.retry_us)}'
