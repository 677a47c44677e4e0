"""Store epochs, kept by the region's agents: when an epoch begins, and from when on older shares are out of use.

A store that may have lost what strict limits admitted is in a pending epoch, in which strict limits are denied. An
agent begins the epoch once its shares are proven: it sees the epoch pending, asks the control plane for the newest
revision, and has that revision. Agents with proven shares vouch in the region's state; a node that starts serves strict
limits once it has read a vouch.
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
NOTICE_S = 0.5
"""How long nodes have to take up an agent's first revision; they look four times a second (``watch``)."""
HORIZON_STEP = 1.25
"""The marker's horizon stays while the measured one differs by less than this factor."""


class Epoch(NamedTuple):
    """The epoch marker after a renewal, with the store's clock (microseconds).

    ``vouched``: an agent with proven shares vouches for this epoch.
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
        """Join the store; makes its epoch pending if it may have lost data."""
        ...

    async def renew(self, revision: int, horizon_us: int, proven_for: int) -> Epoch | None:
        """Make the store refuse shares older than ``revision``, begin a pending epoch ``proven_for``, and vouch for it.

        Returns ``None`` if this is another store by now, or no process has joined it.
        """
        ...

    async def announce(self, revision: int) -> None:
        """Tell nodes that the store will soon refuse shares older than ``revision``."""
        ...


class StoreEpochs:
    """Keeps the epoch marker up to date, and confirms from when on older shares are out of use.

    ``store`` is ``None`` if rights do not move (a Cluster), where strict limits are quotas. ``newest`` asks the control
    plane for the revision that should be in force (``None``: no answer); ``in_force`` returns the one that is.
    """

    def __init__(
        self, store: EpochStore | None, clock: Clock, state: RegionState, horizon_us: Callable[[], int],
        newest: Callable[[], Awaitable[Newest | None]], in_force: Callable[[], Newest],
    ) -> None:  # fmt: skip
        self._store = store
        self._clock = clock
        self._state = state
        self._measured_horizon_us = horizon_us
        self._newest = newest
        self._in_force = in_force
        self._shares_revision = 0
        self._is_announced = False
        """Whether nodes had notice of the first revision; before, the store does not refuse what is older."""
        self._unconfirmed: dict[int, LimitRule] = {}
        self.unconfirmed_ack: Ack | None = None
        self._horizon_us = 0
        self._proven_for = 0
        self.epoch: Epoch | None = None
        """The store's epoch at the last renewal; ``None`` before, and if the store was unavailable or another one."""

    @property
    def is_proven(self) -> bool:
        """Whether this agent's shares are proven for the store's current epoch."""
        if self._store is None:
            return True
        epoch = self.epoch
        return epoch is not None and not epoch.pending and self._is_vouched(epoch)

    def apply(self, changed: Mapping[int, LimitRule], revision: int) -> None:
        """Take over a configuration that is about to be in force, with the strict limits whose shares changed."""
        if changed or not self._shares_revision:
            self._shares_revision = revision
        strict = self._state.strict
        self._unconfirmed = {id: rule for id, rule in self._unconfirmed.items() if id in strict} | dict(changed)

    async def confirmed(self, ack: Ack) -> Ack:
        """The ACK with the instants from which older shares are out of use."""
        if ack.error is not None or not self._unconfirmed:
            return ack
        now_us = await self._confirm()
        if now_us is None:
            self.unconfirmed_ack = ack
            return ack
        confirmed, self._unconfirmed, self.unconfirmed_ack = self._unconfirmed, {}, None
        effective = {id: effective_us(rule, now_us) for id, rule in confirmed.items()}
        return msgspec.structs.replace(ack, effective=effective)

    async def run(self, send: Callable[[Ack], Awaitable[None]]) -> None:
        """Renew for ever; ``send`` an ACK again once it can be confirmed."""
        while True:
            try:
                await self.renew()
            except StoreUnavailableError as error:
                self.epoch = None
                log.debug("epoch_not_renewed", reason=error.reason)
            if self.unconfirmed_ack is not None:
                ack = await self.confirmed(self.unconfirmed_ack)
                if ack.effective:
                    await send(ack)
            await asyncio.sleep(RENEW_EVERY_S)

    async def renew(self) -> None:
        """Renew the marker; begin a pending epoch if shares are proven for it. Raises ``StoreUnavailableError``."""
        if self._store is None or not self._shares_revision:
            return
        epoch = await self._renewed()
        if epoch is None:
            await self._store.join()
            epoch = await self._renewed()
        if epoch is not None and not self._is_announced:
            epoch = await self._announce(self._store, epoch)
        if epoch is not None and not self._is_vouched(epoch) and await self._prove():
            self._proven_for = epoch.incarnation
            epoch = await self._renewed()
            if epoch is not None and not epoch.pending:
                log.info("store_epoch_proven", incarnation=epoch.incarnation, revision=epoch.revision)
        self.epoch = epoch
        if self.is_proven:
            self._state.prove()

    async def _announce(self, store: EpochStore, epoch: Epoch) -> Epoch | None:
        """Raise the marker to this agent's first revision; nodes have notice before, as they may use an older one."""
        if not epoch.pending and epoch.revision < self._shares_revision:
            await store.announce(self._shares_revision)
            await asyncio.sleep(NOTICE_S)
        self._is_announced = True
        return await self._renewed()

    def _is_vouched(self, epoch: Epoch) -> bool:
        by_others = epoch.vouched and not epoch.pending and epoch.revision <= self._in_force().revision
        return epoch.incarnation == self._proven_for or by_others

    async def _renewed(self) -> Epoch | None:
        if self._store is None:
            return None
        horizon_us = self._measured_horizon_us()
        if not self._horizon_us / HORIZON_STEP <= horizon_us <= self._horizon_us * HORIZON_STEP:
            self._horizon_us = horizon_us
        revision = self._shares_revision if self._is_announced else 0
        return await self._store.renew(revision, self._horizon_us, self._proven_for)

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
        return None if epoch is None or epoch.pending or not self._is_announced else epoch.now_us
