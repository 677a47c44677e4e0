"""What moving rights needs: steps on counters in the region's store, and the way to other regions."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from contract.rights import Asks, Gifts
from data_plane.domain.outcome import Outcome
from data_plane.domain.regions.wire import is_refused
from data_plane.services.ports import CallbackCheck, CounterStore, StoreUnavailableError


class RightsTransport(Protocol):
    """The way to another region's nodes."""

    async def ask(self, to_region: str, url: str, asks: Asks) -> Gifts:
        """Put questions. Raises ``UnreachablePeerError``."""
        ...


class RightsTally:
    """Counts since the start of the process, by peer."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()
        self.units_received: Counter[str] = Counter()
        self.units_given: Counter[str] = Counter()
        self.questions: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        """Steps that the store's marker refused, and gifts that nobody can have had to give."""


class RightsSteps:
    """Steps ride in the same calls as decisions."""

    def __init__(self, store: CounterStore, tally: RightsTally) -> None:
        self._store = store
        self._tally = tally

    async def take(self, key: bytes, items: Sequence[bytes], cost: int = 0) -> list[Outcome] | None:
        """Do steps on one counter, all in one script; ``None`` where the store's marker refuses this node.

        ``cost`` is what the request wants that rights are moved for.
        """
        future: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()

        def answered(answer: list[Outcome] | StoreUnavailableError, _now_us: int) -> None:
            if future.done():
                return
            if isinstance(answer, StoreUnavailableError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        self._store.submit(CallbackCheck([key] * len(items), items, cost, answered))
        outcomes = await future
        if is_refused(outcomes):
            self._tally.refused["marker"] += 1
            return None
        return outcomes
