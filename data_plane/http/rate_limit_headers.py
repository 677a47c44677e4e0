"""Rate limit headers: ``X-RateLimit-*`` of the headline limit and the IETF pair of every visible one.

The IETF fields follow draft-ietf-httpapi-ratelimit-headers-11.
"""

from typing import Literal

from data_plane.config.limit_resolution import ResolvedLimit
from data_plane.decide.pending_check import Verdict
from data_plane.store.packing import NEVER, UNKNOWN, Outcome

ResetFormat = Literal["epoch", "delta"]


def header_block(verdict: Verdict, now_us: int, reset_format: ResetFormat) -> bytes:
    """The header lines of a decision, each ended by CRLF; empty when no limit applied.

    ``now_us`` is the node's clock: ``X-RateLimit-Reset`` in epoch seconds needs one.
    """
    if verdict.shed_s:
        return f"retry-after: {verdict.shed_s}\r\n".encode("ascii")
    if verdict.shown is None:
        return b""
    begin_us = now_us if reset_format == "epoch" else 0
    limit_set, outcome = verdict.check.limit_set, verdict.outcomes[verdict.shown]
    shown = limit_set.limits[verdict.shown]
    lines = ""
    if outcome.remaining != UNKNOWN and (shown.visible or not verdict.allowed):
        reset_us = outcome.reset_us if verdict.allowed or outcome.retry_us == NEVER else outcome.retry_us
        lines = (
            f"x-ratelimit-limit: {shown.rule.limit}\r\nx-ratelimit-remaining: {outcome.remaining}\r\n"
            f"x-ratelimit-reset: {ceil_s(begin_us + reset_us)}\r\n"
        )
    if limit_set.policies:
        every = zip(limit_set.limits, verdict.outcomes, strict=True)
        states = ", ".join([_state(limit, one) for limit, one in every if limit.visible and one.remaining != UNKNOWN])
        lines += f"ratelimit-policy: {limit_set.policies}\r\n" + (f"ratelimit: {states}\r\n" if states else "")
    if not verdict.allowed and outcome.retry_us != NEVER:
        lines += f"retry-after: {ceil_s(outcome.retry_us)}\r\n"
    return lines.encode("ascii")


def ceil_s(us: int) -> int:
    """Microseconds as whole seconds, rounded up."""
    return -(-us // 1_000_000)


def _state(limit: ResolvedLimit, outcome: Outcome) -> str:
    if outcome.allowed or limit.rule.shadow:
        return f'"{limit.rule.name}";r={outcome.remaining};t={ceil_s(outcome.reset_us)}'
    if outcome.retry_us == NEVER:
        return f'"{limit.rule.name}";r={outcome.remaining}'
    return f'"{limit.rule.name}";r={outcome.remaining};t={ceil_s(outcome.retry_us)}'
