"""How this region stands to the others, kept true: shares that change, rights that are safe, peers that fall silent."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
import structlog

from contract.config import Ack
from contract.limits import LimitRule
from data_plane.domain.index import RuleIndex
from data_plane.domain.regions.limits import effective_us
from data_plane.domain.regions.standing import Standing
from data_plane.domain.rulebook import Rulebook
from data_plane.services.ports import Clock, StoreUnavailableError

log = structlog.get_logger()

LOOK_EVERY_S = 0.5
HORIZON_STEP = 1.25
"""A horizon that differs by less is left as it is."""


class StoreLife(Protocol):
    """What the region's store knows of itself and of its nodes' shares."""

    revision: int
    horizon_us: int

    async def confirm(self) -> int | None:
        """Let the store refuse nodes with older shares than this one's. Raises ``StoreUnavailableError``.

        Answers the store's clock in microseconds from which on it does; ``None`` where the store is another one by now.
        """
        ...

    async def rejoin(self) -> None:
        """Where the store refuses strict limits because it forgot all, begin anew. Raises ``StoreUnavailableError``."""
        ...


class Standings:
    """Binds limits by how this region stands, and answers from when on a cut holds.

    ``life`` is ``None`` where rights do not move (a Cluster): there ``strict`` limits are quotas. ``in_force`` is the
    rulebook by which decisions are made; it may differ from the one of the configuration by switches that have ended.
    ``refusals`` counts how often the store refused a strict limit.
    """

    def __init__(
        self, life: StoreLife | None, clock: Clock, horizon_us: Callable[[], int], refusals: Callable[[], int],
        in_force: Callable[[], Rulebook],
    ) -> None:  # fmt: skip
        self._life = life
        self._clock = clock
        self._horizon_us = horizon_us
        self._refusals = refusals
        self._refused = 0
        self._in_force = in_force
        self._book: Rulebook | None = None
        self._revision = 0
        self._standing = Standing()
        self._strict: dict[int, LimitRule] = {}
        self._unconfirmed: dict[int, LimitRule] = {}
        self._owed: Ack | None = None

    @property
    def silent(self) -> tuple[tuple[str, int], ...]:
        """Peers that are not heard, with since when."""
        return self._standing.silent

    def applied(self, index: RuleIndex, revision: int) -> None:
        """A configuration is about to be in force. Clients change nothing here."""
        self._revision = revision
        if index.book is self._book:
            return
        strict = {rule.id: rule for rule in index.book.rules() if rule.mode == "strict"}
        changed = {id: rule for id, rule in strict.items() if _figures(rule) != _figures(self._strict.get(id))}
        if self._life is not None and (changed or not self._life.revision):
            self._life.revision = revision
        self._unconfirmed = {id: rule for id, rule in self._unconfirmed.items() if id in strict} | changed
        self._book, self._strict = index.book, strict
        self._stand(self._standing._replace(revision=revision, rights=self._life is not None))

    def hear(self, silent: tuple[tuple[str, int], ...]) -> None:
        """Who is not heard by now, with since when."""
        if silent != self._standing.silent:
            log.info("peers_silent", peers=[name for name, _ in silent])
            self._stand(self._standing._replace(silent=silent))

    async def confirmed(self, ack: Ack) -> Ack:
        """The ACK with the instants from which older shares cannot be used any more."""
        if ack.error is not None or not self._unconfirmed:
            return ack
        try:
            now_us = self._clock.now_us() if self._life is None else await self._life.confirm()
        except StoreUnavailableError as error:
            log.warning("shares_not_confirmed", reason=error.reason)
            now_us = None
        if now_us is None:
            self._owed = ack
            return ack
        confirmed, self._unconfirmed, self._owed = self._unconfirmed, {}, None
        effective = {id: effective_us(rule, now_us) for id, rule in confirmed.items()}
        return msgspec.structs.replace(ack, effective=effective)

    async def run(self, say: Callable[[Ack], Awaitable[None]]) -> None:
        """Say what could not be said before, and keep the store's horizon true; for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._owed is not None:
                ack = await self.confirmed(self._owed)
                if ack.effective:
                    await say(ack)
            await self._keep_horizon()
            await self._join_again()

    async def _keep_horizon(self) -> None:
        life, horizon_us = self._life, self._horizon_us()
        if life is None or life.horizon_us / HORIZON_STEP <= horizon_us <= life.horizon_us * HORIZON_STEP:
            return
        life.horizon_us = horizon_us
        try:
            await life.confirm()
        except StoreUnavailableError as error:
            log.info("horizon_not_kept", reason=error.reason)

    async def _join_again(self) -> None:
        refused = self._refusals()
        if self._life is None or refused == self._refused:
            return
        if self._revision > self._standing.revision:
            # no limit changed since, so nothing was bound anew; but a node that came later knows these shares by a
            # newer revision, and the store refuses older ones
            self._stand(self._standing._replace(revision=self._revision))
        try:
            await self._life.rejoin()
            self._refused = refused
        except StoreUnavailableError as error:
            log.warning("store_not_joined", reason=error.reason)

    def _stand(self, standing: Standing) -> None:
        self._standing = standing
        if self._book is not None:
            self._book.stand(standing)
        in_force = self._in_force()
        if in_force is not self._book:
            in_force.stand(standing)


def _figures(rule: LimitRule | None) -> tuple[object, ...] | None:
    """What decides who owns what."""
    return None if rule is None else (rule.limit, rule.burst, rule.shares, rule.steps, rule.parts)
