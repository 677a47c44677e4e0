"""What evaluating one limit yields before it is known whether the decision as a whole goes through."""

from typing import Generic, NamedTuple, TypeVar

from data_plane.domain.outcome import NEVER, Outcome

StateT = TypeVar("StateT")


class Verdict(NamedTuple, Generic[StateT]):
    """One limit's answer both ways.

    ``untouched`` is its outcome if nothing is consumed, ``consumed`` if the decision goes through. ``state`` is what to
    store then, ``None`` when there is nothing to store; from ``forget_us`` on it means the same as no state.
    """

    untouched: Outcome
    consumed: Outcome
    state: StateT | None
    forget_us: int


def denied(remaining: int, reset_us: int, retry_us: int) -> Verdict[StateT]:
    """A refusal: consumes nothing. ``retry_us`` may be ``NEVER``."""
    outcome = Outcome(allowed=False, remaining=remaining, reset_us=reset_us, retry_us=retry_us, delay_us=0)
    return Verdict(outcome, outcome, None, 0)


def denied_forever(remaining: int, reset_us: int) -> Verdict[StateT]:
    """A refusal that waiting does not cure: the cost is beyond what the limit can ever hold."""
    return denied(remaining, reset_us, NEVER)


def peeked(remaining: int, reset_us: int, delay_us: int = 0) -> Verdict[StateT]:
    """A pass of cost 0: consumes nothing."""
    outcome = Outcome(allowed=True, remaining=remaining, reset_us=reset_us, retry_us=0, delay_us=delay_us)
    return Verdict(outcome, outcome, None, 0)
