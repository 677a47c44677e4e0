"""Store epochs, kept by the region's agents: who begins one, and from when on a cut of shares holds.

A store that may have forgotten what strict limits admitted is in a pending epoch, in which strict limits are denied.
An agent begins the epoch once its shares are proven: the control plane, asked after the epoch was seen pending, named
the revision that the agent has. A node never begins one. While an agent with proven shares lives it says so in the
region's state; nodes that start serve strict limits only once they have read that.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, Protocol

import msgspec
import structlog

from data_plane.config.strict_limits import effective_us
from data_plane.rights.region_state import RegionState
from data_plane.store.ports import Clock, StoreUnavailableError
from tidegate.contract.config import Ack
from tidegate.contract.limits import LimitRule
from tidegate.contract.status import Newest

log = structlog.get_logger()

RENEW_EVERY_S = 0.5
HORIZON_STEP = 1.25
"""A horizon that differs by less is left as it is."""


class Epoch(NamedTuple):
    """What the marker says after a renewal, and the store's clock then (microseconds).

    ``vouched``: an agent with proven shares lives in this epoch.
    """

    incarnation: int
    revision: int
    horizon_us: int
    now_us: int
    pending: bool
    vouched: bool


class EpochStore(Protocol):
    """The epoch marker in the region's store. Every method raises ``StoreUnavailableError``."""

    async def join(self) -> None:
        """Look which epoch this is; where the store may have forgotten something, make it pending."""
        ...

    async def renew(self, revision: int, horizon_us: int, proven_for: int) -> Epoch | None:
        """Let the store refuse older shares than ``revision``, begin a pending epoch that is ``proven_for``, and vouch
        for that. ``None`` where this is another store by now, or nobody has joined it.
        """
        ...


class StoreEpochs:
    """Keeps the marker true, and answers from when on a cut holds.

    ``store`` is ``None`` where rights do not move (a Cluster): there strict limits are quotas. ``newest`` asks the
    control plane which revision is to be in force here (``None``: no answer); ``in_force`` is the one that is.
    """

    def __init__(
        self, store: EpochStore | None, clock: Clock, state: RegionState, horizon_us: Callable[[], int],
        newest: Callable[[], Awaitable[Newest | None]], in_force: Callable[[], Newest],
    ) -> None:  # fmt: skip
        self._store = store
        self._clock = clock
        self._state = state
        self._horizon_us = horizon_us
        self._newest = newest
        self._in_force = in_force
        self._shares_revision = 0
        self._unconfirmed: dict[int, LimitRule] = {}
        self._owed: Ack | None = None
        self._horizon = 0
        self._proven_for = 0
        self.epoch: Epoch | None = None
        """The store's as last seen; ``None`` before, and where the store was away or another one."""

    @property
    def is_proven(self) -> bool:
        """Whether this agent's shares are the newest for all that can be known, in the epoch that the store is in."""
        if self._store is None:
            return True
        epoch = self.epoch
        return epoch is not None and not epoch.pending and self._is_vouched(epoch)

    def applied(self, changed: Mapping[int, LimitRule], revision: int) -> None:
        """A configuration is about to be in force that divides these strict limits otherwise than the one before."""
        if changed or not self._shares_revision:
            self._shares_revision = revision
        strict = self._state.strict
        self._unconfirmed = {id: rule for id, rule in self._unconfirmed.items() if id in strict} | dict(changed)

    async def confirmed(self, ack: Ack) -> Ack:
        """The ACK with the instants from which on older shares cannot be used any more."""
        if ack.error is not None or not self._unconfirmed:
            return ack
        now_us = await self._confirm()
        if now_us is None:
            self._owed = ack
            return ack
        confirmed, self._unconfirmed, self._owed = self._unconfirmed, {}, None
        effective = {id: effective_us(rule, now_us) for id, rule in confirmed.items()}
        return msgspec.structs.replace(ack, effective=effective)

    async def run(self, say: Callable[[Ack], Awaitable[None]]) -> None:
        """Renew, and say what could not be said with an ACK; for ever."""
        while True:
            try:
                await self.renew()
            except StoreUnavailableError as error:
                self.epoch = None
                log.debug("epoch_not_renewed", reason=error.reason)
            if self._owed is not None:
                ack = await self.confirmed(self._owed)
                if ack.effective:
                    await say(ack)
            await asyncio.sleep(RENEW_EVERY_S)

    async def renew(self) -> None:
        """Keep the marker true once; begin an epoch that waits for proven shares. Raises ``StoreUnavailableError``."""
        if self._store is None or not self._shares_revision:
            return
        epoch = await self._renewed()
        if epoch is None:
            await self._store.join()
            epoch = await self._renewed()
        if epoch is not None and not self._is_vouched(epoch) and await self._prove():
            self._proven_for = epoch.incarnation
            epoch = await self._renewed()
            if epoch is not None and not epoch.pending:
                log.info("store_epoch_proven", incarnation=epoch.incarnation, revision=epoch.revision)
        self.epoch = epoch
        if self.is_proven:
            self._state.prove()

    def _is_vouched(self, epoch: Epoch) -> bool:
        by_others = epoch.vouched and not epoch.pending and epoch.revision <= self._in_force().revision
        return epoch.incarnation == self._proven_for or by_others

    async def _renewed(self) -> Epoch | None:
        if self._store is None:
            return None
        horizon_us = self._horizon_us()
        if not self._horizon / HORIZON_STEP <= horizon_us <= self._horizon * HORIZON_STEP:
            self._horizon = horizon_us
        return await self._store.renew(self._shares_revision, self._horizon, self._proven_for)

    async def _prove(self) -> bool:
        newest = await self._newest()
        return newest is not None and newest == self._in_force()

    async def _confirm(self) -> int | None:
        if self._store is None:
            return self._clock.now_us()
        try:
            epoch = await self._renewed()
        except StoreUnavailableError as error:
            log.warning("shares_not_confirmed", reason=error.reason)
            return None
        return None if epoch is None or epoch.pending else epoch.now_us
