"""What outcomes of strict limits say beside the decision, read by a node."""

from collections.abc import Callable, Sequence

from data_plane.store.packing import UNKNOWN, Outcome, price_of
from data_plane.store.strict_packing import LOW, REFUSED


class StrictReader:
    """Port ``RightsReader``: hands what is low to ``low``."""

    def __init__(self, low: Callable[[bytes, int], None]) -> None:
        self._low = low
        self.refused = 0
        """Decisions that the store refused: a pending epoch, or shares that are old or not proven."""

    def understood(
        self, places: Sequence[int], keys: Sequence[bytes], params: Sequence[bytes], cost: int, outcomes: list[Outcome]
    ) -> list[Outcome]:
        """Outcomes of strict limits without what they say beside the decision: low, refused by the store."""
        for at in places:
            outcome = outcomes[at]
            if outcome.reset_us < REFUSED:
                continue
            if outcome.reset_us < LOW:
                self.refused += 1
                outcomes[at] = Outcome(False, UNKNOWN, outcome.retry_us, outcome.retry_us, 0)
                continue
            self._low(keys[at], price_of(params[at], cost))
            outcomes[at] = Outcome(
                outcome.allowed, outcome.remaining, outcome.reset_us - LOW, outcome.retry_us, outcome.delay_us
            )
        return outcomes
