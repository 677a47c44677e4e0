"""One decision over every limit that applies: all or nothing."""

from collections.abc import Sequence
from typing import cast

from data_plane.store.packing import Outcome
from tests.reference.buckets import BucketState, bucket
from tests.reference.log import LogState, sliding_log
from tests.reference.verdict import Stored, Verdict
from tests.reference.windows import WindowState, fixed_window, sliding_window
from tidegate.contract.limits import LimitRule

State = WindowState | LogState | BucketState


def evaluate(rule: LimitRule, state: State | None, cost: int, now_us: int) -> Verdict[State]:
    """Ask one limit for ``cost`` units. A state of another algorithm's counts as none."""
    match rule.algorithm:
        case "fixed_window":
            found = state if isinstance(state, WindowState) else None
            return cast("Verdict[State]", fixed_window(rule, found, cost, now_us))
        case "sliding_window":
            found = state if isinstance(state, WindowState) else None
            return cast("Verdict[State]", sliding_window(rule, found, cost, now_us))
        case "sliding_log":
            log = state if isinstance(state, LogState) else None
            return cast("Verdict[State]", sliding_log(rule, log, cost, now_us))
        case "token_bucket" | "leaky_bucket":
            level = state if isinstance(state, BucketState) else None
            return cast("Verdict[State]", bucket(rule, level, cost, now_us))


def decide(
    rules: Sequence[LimitRule], states: Sequence[State | None], cost: int, now_us: int
) -> tuple[list[Outcome], list[Stored[State] | None]]:
    """Decide ``cost`` units against ``rules`` in their ``states``: the outcomes, and what to store, in the same order.

    If any enforced limit denies, nothing is consumed. A shadow limit that denies blocks nothing and is not consumed.
    """
    verdicts = [evaluate(rule, state, cost, now_us) for rule, state in zip(rules, states, strict=True)]
    if all(verdict.consumed.allowed or rule.shadow for rule, verdict in zip(rules, verdicts, strict=True)):
        return [verdict.consumed for verdict in verdicts], [verdict.on_consumed for verdict in verdicts]
    return [verdict.untouched for verdict in verdicts], [verdict.on_untouched for verdict in verdicts]
