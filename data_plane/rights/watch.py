"""What a node reads of its region: unreachable peers, whether its shares are proven, and which counters are low."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from data_plane.rights.epoch_store import Notice
from data_plane.rights.region_state import RegionState
from data_plane.store.packing import UNKNOWN, Outcome, price_of
from data_plane.store.ports import Clock, StoreUnavailableError
from data_plane.store.strict_packing import LOW, REFUSED

log = structlog.get_logger()

CHECK_EVERY_S = 0.25


class StrictReader:
    """Implements ``RightsReader``: reports low counters to ``low``."""

    def __init__(self, low: Callable[[bytes, int], None]) -> None:
        self._low = low
        self.refused = 0
        """Decisions that the store refused: its epoch is pending, or this node's shares are old or unproven."""

    def understood(
        self, places: Sequence[int], keys: Sequence[bytes], params: Sequence[bytes], cost: int, outcomes: list[Outcome]
    ) -> list[Outcome]:
        """Outcomes with the marks of strict limits, low and refused, taken out of their reset times."""
        for place in places:
            outcome = outcomes[place]
            if outcome.reset_us < REFUSED:
                continue
            if outcome.reset_us < LOW:
                self.refused += 1
                outcomes[place] = Outcome(False, UNKNOWN, outcome.retry_us, outcome.retry_us, 0)
                continue
            self._low(keys[place], price_of(params[place], cost))
            outcomes[place] = Outcome(
                outcome.allowed, outcome.remaining, outcome.reset_us - LOW, outcome.retry_us, outcome.delay_us
            )
        return outcomes


class PeerCheck(Protocol):
    """Finds unreachable peers."""

    async def check_peers(self) -> None:
        """Find the peers that are unreachable now. Raises ``StoreUnavailableError``."""
        ...


class Notices(Protocol):
    """Where agents vouch for shares, and announce revisions."""

    async def notice(self) -> Notice:
        """Read the notice for nodes. Raises ``StoreUnavailableError``."""
        ...


class RegionWatch:
    """Keeps a node's region state up to date. ``notices`` is ``None`` where rights do not move."""

    def __init__(self, state: RegionState, peers: PeerCheck, notices: Notices | None, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._peers = peers
        self._notices = notices

    async def run(self) -> None:
        """Check a few times a second, for ever."""
        reason: str | None = None
        while True:
            try:
                await self.check()
                reason = None
            except StoreUnavailableError as error:
                if error.reason != reason:
                    log.warning("region_not_seen", reason=error.reason)
                reason = error.reason
            await asyncio.sleep(CHECK_EVERY_S)

    async def check(self) -> None:
        """Check once. Raises ``StoreUnavailableError``."""
        self._state.drop_finished_moves(self._clock.now_us())
        await self._peers.check_peers()
        if self._notices is not None and (self._state.strict or not self._state.proven):
            notice = await self._notices.notice()
            if self._state.require(notice.revision) and notice.vouched:
                self._state.prove()
