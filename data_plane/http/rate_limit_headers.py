"""Rate limit headers: ``X-RateLimit-*`` of the headline limit and the IETF pair of every visible one.

The IETF fields follow draft-ietf-httpapi-ratelimit-headers-11.
"""

from typing import Literal

from data_plane.decide.pending_check import Verdict
from data_plane.store.packing import NEVER, UNKNOWN

ResetFormat = Literal["epoch", "delta"]


def header_block(verdict: Verdict, now_us: int, reset_format: ResetFormat) -> bytes:
    """The header lines of a decision, each ended by CRLF; empty when no limit applied.

    ``now_us`` is the node's clock: ``X-RateLimit-Reset`` in epoch seconds needs one.
    """
    text, figures = header_lines(verdict, now_us, reset_format)
    return text % tuple(figures)


def header_lines(verdict: Verdict, now_us: int, reset_format: ResetFormat) -> tuple[bytes, list[int]]:
    """The same lines with ``%d`` for each figure, and the figures. Names of limits have no ``%``."""
    if verdict.shed_s:
        return b"retry-after: %d\r\n", [verdict.shed_s]
    if verdict.shown is None:
        return b"", []
    begin_us = now_us if reset_format == "epoch" else 0
    limit_set, outcome = verdict.check.limit_set, verdict.outcomes[verdict.shown]
    shown = limit_set.limits[verdict.shown]
    text, figures = "", []
    if outcome.remaining != UNKNOWN and (shown.visible or not verdict.allowed):
        reset_us = outcome.reset_us if verdict.allowed or outcome.retry_us == NEVER else outcome.retry_us
        text = f"x-ratelimit-limit: {shown.rule.limit}\r\nx-ratelimit-remaining: %d\r\nx-ratelimit-reset: %d\r\n"
        figures = [outcome.remaining, ceil_s(begin_us + reset_us)]
    if limit_set.policies:
        states = ""
        for limit, one in zip(limit_set.limits, verdict.outcomes, strict=True):
            if limit.visible and one.remaining != UNKNOWN:
                wait_us = one.reset_us if one.allowed or limit.rule.shadow else one.retry_us
                figures.append(one.remaining)
                if wait_us == NEVER:
                    states += f', "{limit.rule.name}";r=%d'
                else:
                    states += f', "{limit.rule.name}";r=%d;t=%d'
                    figures.append((wait_us + 999_999) // 1_000_000)
        text += f"ratelimit-policy: {limit_set.policies}\r\n" + (f"ratelimit: {states[2:]}\r\n" if states else "")
    if not verdict.allowed and outcome.retry_us != NEVER:
        text += "retry-after: %d\r\n"
        figures.append(ceil_s(outcome.retry_us))
    return text.encode("ascii"), figures


def ceil_s(us: int) -> int:
    """Microseconds as whole seconds, rounded up."""
    return -(-us // 1_000_000)
