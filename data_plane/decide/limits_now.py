"""A client's limits as the region's store has them at this moment; looking consumes nothing.

Only limits whose counter a client alone names can be shown: those by client, and the global ones.
"""

from collections.abc import Sequence

from data_plane.config.counter_keys import subject_of
from data_plane.config.index import Principal
from data_plane.config.routes import UNMATCHED
from data_plane.config.rulebook import Rulebook
from data_plane.store.asking import ask
from data_plane.store.packing import Outcome
from data_plane.store.ports import CounterStore
from data_plane.store.strict_packing import REFUSED
from data_plane.store.subjects import UNKNOWN_ADDRESS
from tidegate.contract.limits import LimitRule, capacity, dimensions
from tidegate.contract.questions import LimitFigure

_TELLABLE = frozenset({("client",), ("global",)})


def is_tellable(rule: LimitRule) -> bool:
    """Whether a client alone names its counter."""
    return dimensions(rule.scope) in _TELLABLE


async def limits_now(
    store: CounterStore, book: Rulebook, principal: Principal, rules: Sequence[LimitRule]
) -> list[LimitFigure]:
    """What is left of each of these limits, all of them ``is_tellable``. Raises ``StoreUnavailableError``."""
    if not rules:
        return []
    limits = [book.resolved(rule, UNMATCHED) for rule in rules]
    subject = subject_of(principal.client, UNKNOWN_ADDRESS, principal.client.attributes)
    keys = [limit.key_builder.key(subject) for limit in limits]
    steps = {at: limit.strict.used() for at, limit in enumerate(limits) if limit.strict is not None}
    items = [*(limit.params for limit in limits), *steps.values()]
    outcomes, _ = await ask(store, [*keys, *(keys[at] for at in steps)], items, 0)
    used = dict(zip(steps, outcomes[len(limits) :], strict=True))
    return [_figure(limit.alone, outcomes[at], used.get(at)) for at, limit in enumerate(limits)]


def _figure(rule: LimitRule, outcome: Outcome, used: Outcome | None) -> LimitFigure:
    """What is left and what was used. A strict limit's use is asked for separately, because its rights move."""
    most = capacity(rule)
    taken = max(0, most - outcome.remaining) if used is None or not used.allowed else used.remaining
    # a strict limit on a store that this node has not joined: nothing is left, for an unknown time
    reset_us = outcome.reset_us if outcome.reset_us < REFUSED else 0
    return LimitFigure(rule.id, most, taken, outcome.remaining, reset_us / 1_000_000)
