"""What evaluating one limit yields before it is known whether the decision as a whole goes through."""

from typing import Generic, NamedTuple, TypeVar

from data_plane.store.packing import NEVER, Outcome

StateT = TypeVar("StateT")


class Stored(NamedTuple, Generic[StateT]):
    """A state to keep; from ``forget_us`` on it means the same as none."""

    state: StateT
    forget_us: int


class Verdict(NamedTuple, Generic[StateT]):
    """One limit's answer both ways, each with what to store then (``None``: leave what is there).

    ``untouched`` is its outcome if nothing is consumed, ``consumed`` if the decision goes through.
    """

    untouched: Outcome
    consumed: Outcome
    on_untouched: Stored[StateT] | None = None
    on_consumed: Stored[StateT] | None = None


def denied(remaining: int, reset_us: int, retry_us: int, kept: Stored[StateT] | None = None) -> Verdict[StateT]:
    """A refusal: consumes nothing. ``retry_us`` may be ``NEVER``."""
    outcome = Outcome(allowed=False, remaining=remaining, reset_us=reset_us, retry_us=retry_us, delay_us=0)
    return Verdict(outcome, outcome, kept, kept)


def denied_forever(remaining: int, reset_us: int) -> Verdict[StateT]:
    """A refusal that waiting does not cure: the cost is beyond what the limit can ever hold."""
    return denied(remaining, reset_us, NEVER)


def peeked(remaining: int, reset_us: int, delay_us: int = 0) -> Verdict[StateT]:
    """A pass of cost 0: consumes nothing."""
    outcome = Outcome(allowed=True, remaining=remaining, reset_us=reset_us, retry_us=0, delay_us=delay_us)
    return Verdict(outcome, outcome)
