"""Is a new revision worse than what was before? Pure: the figures come from nodes' reports."""

from control_plane.canary.models import RolloutRow
from control_plane.nodes.repository import Decided


def worsening(rollout: RolloutRow, before: Decided, now: Decided) -> str | None:
    """Why the roll-out must stop, by the rates of the nodes in its stage before it began and now; else nothing.

    Too few decisions on either side say nothing: a rate of five requests is noise.
    """
    if now.decisions < rollout.min_decisions or before.decisions < rollout.min_decisions:
        return None
    for what, was, found, most in (
        ("denials", before.denied, now.denied, rollout.max_denial_rise),
        ("degraded decisions", before.degraded, now.degraded, rollout.max_degraded_rise),
    ):
        rate_before, rate = was / before.decisions, found / now.decisions
        if rate - rate_before > most:
            return f"{what} rose from {rate_before:.1%} to {rate:.1%} of {now.decisions} decisions"
    return None
