"""What a denial was caused by, read off its verdict. Pure."""

from data_plane.decide.pending_check import Refusal, Verdict
from data_plane.store.outcome import NEVER, UNKNOWN, Outcome
from tidegate.contract.causes import Cause, LimitCause

_OF_CALLERS: dict[Refusal, Cause] = {
    Refusal.MISSING_KEY: "missing_api_key",
    Refusal.UNKNOWN_KEY: "unknown_api_key",
    Refusal.SUSPENDED: "client_suspended",
}


def cause_of_refusal(refusal: Refusal) -> Cause:
    """Why no limit was looked at."""
    return _OF_CALLERS.get(refusal, "blocked")


def cause_of_denial(verdict: Verdict) -> LimitCause:
    """Why the limit that a denial shows denies."""
    if verdict.shed_s or verdict.shown is None:
        return "reduced_capacity"
    cause = cause_of(verdict.outcomes[verdict.shown])
    return "reduced_capacity" if verdict.by_load and cause != "cost_above_limit" else cause


def cause_of(outcome: Outcome) -> LimitCause:
    """Why one limit denies, whatever a backend's load."""
    if outcome.retry_us == NEVER:
        return "cost_above_limit"
    if outcome.remaining == UNKNOWN:
        return "cannot_decide"
    return "too_few_left" if outcome.remaining else "used_up"
