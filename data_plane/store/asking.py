"""Asks the store about one check, for whoever can wait for the answer: nothing of the decision path can."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from data_plane.store.packing import Outcome
from data_plane.store.ports import CallbackCheck, CounterStore, StoreUnavailableError


class Asked(NamedTuple):
    """The outcomes in the order of the keys, and the store's clock (microseconds) by which each was decided."""

    outcomes: list[Outcome]
    clocks_us: Sequence[int]


async def ask(store: CounterStore, keys: Sequence[bytes], params: Sequence[bytes], cost: int) -> Asked:
    """Decide one check. Raises ``StoreUnavailableError``."""
    answered: asyncio.Future[tuple[list[Outcome], int]] = asyncio.get_running_loop().create_future()

    def done(answer: list[Outcome] | StoreUnavailableError, store_now_us: int) -> None:
        if answered.done():  # whoever asked has left
            return
        if isinstance(answer, StoreUnavailableError):
            answered.set_exception(answer)
        else:
            answered.set_result((answer, store_now_us))

    check = CallbackCheck(keys, params, cost, done)
    store.submit(check)
    outcomes, store_now_us = await answered
    return Asked(outcomes, check.clocks_us or [store_now_us] * len(outcomes))
