"""Transfers of rights of ``strict`` limits between regions: this agent asks for what its region lacks, and gives.

A decision that leaves too few rights reports its counter as low; while rights are plentiful nothing is sent. Steps use
connections that have joined the store, so they act on its current epoch only.
"""

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import structlog

from data_plane.config.index import RuleIndex
from data_plane.config.limits_of_keys import StrictLimit, StrictLimits
from data_plane.config.strict_limits import whole_shares
from data_plane.rights.client import RightsAnswer, RightsClient
from data_plane.rights.low_water import LowCounters
from data_plane.rights.transfers import RightsRequest, RightsTally, RightsTransport, is_plausible
from data_plane.store.asking import ask as ask_store
from data_plane.store.packing import Outcome
from data_plane.store.ports import Clock, CounterStore, StoreUnavailableError, UnreachablePeerError
from data_plane.store.strict_packing import Total, basis_of, given, is_refused, known_total, received
from tidegate.contract.calendar import grid_of, id_at, start_us
from tidegate.contract.limits import nominal_window_us
from tidegate.contract.rights import MAX_ASKS, Ask, Asks, Gift, Gifts

log = structlog.get_logger()

FORGET_AFTER_US = 60_000_000
AGAIN_S = 0.5


class LowCountersOfNodes(Protocol):
    """Low counters of the region, reported by its nodes. Every method raises ``StoreUnavailableError``."""

    async def take(self) -> Mapping[bytes, int]:
        """Take low counters, each with the cost of a request; waits a while for some."""
        ...

    async def back_off(self, key: bytes, for_us: int, *, hopeless: bool) -> None:
        """Note for nodes that no peer is asked about a counter for that time; ``hopeless``: no peer has any rights."""
        ...

    async def end_back_off(self, key: bytes) -> None:
        """Note for nodes that a peer can be asked again."""
        ...


class RightsExchange:
    """Asks peers for rights and answers their requests, while ``is_proven()`` holds for its shares."""

    def __init__(
        self, region: str, store: CounterStore, transport: RightsTransport, clock: Clock,
        index: Callable[[], RuleIndex], revision: Callable[[], int], inbox: LowCountersOfNodes,
        is_proven: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._region = region
        self._store = store
        self._inbox = inbox
        self._is_proven = is_proven
        self._transport = transport
        self._clock = clock
        self._index = index
        self._limits = StrictLimits(region, index, revision)
        self._client = RightsClient(())
        self._peers: Mapping[str, str] = {}
        self.incarnations: dict[str, int] = {}
        """The newest known epoch of each region's store, this region's included."""
        self.low = LowCounters()
        self.under_way: set[asyncio.Task[None]] = set()
        self._last_run_us = self._forgot_us = 0
        self.tally = RightsTally()

    def horizon_us(self) -> int:
        """For how long rights should last before more are asked for, as measured; 0 without peers."""
        self._refresh_peers()
        return self._client.horizon_us() if self._peers else 0

    def note_low(self, key: bytes, cost: int) -> None:
        """Ask soon for rights of a counter that is low for requests of ``cost``. Returns at once."""
        self.low.add(key, cost, self._clock.now_us())

    async def run(self) -> None:
        """Ask for rights of low counters, for ever."""
        while True:
            await self.low.added.wait()
            self.low.added.clear()
            try:
                await self._ask_for_low()
            except StoreUnavailableError as error:
                log.warning("rights_not_asked", reason=error.reason)

    async def receive_low(self) -> None:
        """Take low counters that nodes report, for ever."""
        while True:
            try:
                for key, cost in (await self._inbox.take()).items():
                    self.note_low(key, cost)
            except StoreUnavailableError as error:
                log.debug("low_not_received", reason=error.reason)
                await asyncio.sleep(AGAIN_S)

    async def stop(self) -> None:
        """Cancel requests that are under way."""
        for task in self.under_way:
            task.cancel()
        await asyncio.gather(*self.under_way, return_exceptions=True)

    async def give(self, asks: Asks) -> Gifts:
        """Answer a verified peer's requests.

        Raises ``StoreUnavailableError`` if the store answers none of them, or shares are not proven.
        """
        if not self._is_proven():
            raise StoreUnavailableError("shares_not_proven")
        self._note_incarnation(asks.region, asks.incarnation)
        self.tally.questions[asks.region] += len(asks.asks)
        now_s = self._clock.now_us() / 1e6
        known = [(ask, limit) for ask in asks.asks if (limit := self._limits.of_key(ask.key, now_s)) is not None]
        answers = await asyncio.gather(*(self._give(asks, ask, limit) for ask, limit in known), return_exceptions=True)
        gifts: list[Gift] = []
        incarnation = 0
        failed: StoreUnavailableError | None = None
        for answer in answers:
            if isinstance(answer, StoreUnavailableError):
                failed = answer
            elif isinstance(answer, BaseException):
                raise answer
            elif answer is not None:
                gift, epoch = answer
                if epoch != incarnation:  # the store came back meanwhile: what it gave before is lost with it
                    gifts.clear()
                incarnation = epoch
                gifts.append(gift)
        if failed is not None and not gifts:
            raise failed
        return Gifts(
            region=self._region, incarnation=incarnation, to_incarnation=asks.incarnation,
            sent_at=self._clock.now_us() / 1e6, gifts=tuple(gifts),
        )  # fmt: skip

    async def _give(self, asks: Asks, ask: Ask, limit: StrictLimit) -> tuple[Gift, int] | None:
        """Give rights of one counter. Returns the gift and the epoch of this region's store."""
        params = limit.params
        known = Total(ask.units, ask.quanta)
        give = params.give(
            asks.region, asks.incarnation, ask.id, ask.to_incarnation, known, ask.have, ask.rate, (ask.unit, ask.size)
        )
        outcomes = await self._take_steps(ask.key, [give, params.known(asks.region, 0, 0)])
        if outcomes is None:
            return None
        answer, (_, incarnation) = given(outcomes[0]), known_total(outcomes[1])
        self._client.note_request_of(asks.region, ask.key, ask.id, ask.have)
        if ask.have > 0:
            await self._end_back_off(ask.key)
        self.tally.note_held(ask.key, limit.rule.name, answer.have, self._clock.now_us())
        if incarnation and not answer.is_repeat:
            self.tally.units_given[asks.region] += max(0, answer.total.units - ask.units)
        gift = Gift(ask.key, ask.id, answer.total.units, answer.total.quanta, answer.have, answer.is_empty)
        return gift, incarnation

    async def _ask_for_low(self) -> None:
        self._refresh_peers()
        low = self.low.take()
        self._forget_idle()
        if not self._peers or not self._is_proven():
            return
        found = await asyncio.gather(
            *(self._request_for(key, cost) for key, cost in low.items()), return_exceptions=True
        )
        by_peer: dict[str, list[RightsRequest]] = {}
        for choice in found:
            if isinstance(choice, BaseException) and not isinstance(choice, StoreUnavailableError):
                raise choice
            if isinstance(choice, tuple) and not isinstance(choice, StoreUnavailableError):
                peer, request = choice
                by_peer.setdefault(peer, []).append(request)
        for peer, requests in by_peer.items():
            for start in range(0, len(requests), MAX_ASKS):
                task = asyncio.create_task(self._send(peer, requests[start : start + MAX_ASKS]))
                self.under_way.add(task)
                task.add_done_callback(self.under_way.discard)

    async def _request_for(self, key: bytes, cost: int) -> tuple[str, RightsRequest] | None:
        """The peer to ask for rights of a counter, and the request; ``None`` if no peer can be asked now."""
        now_us = self._clock.now_us()
        limit = self._limits.of_key(key, now_us / 1e6)
        if limit is None:
            return None
        grid = grid_of(limit.rule)
        if self._client.is_waiting(key, id_at(grid, now_us), now_us):
            return None
        outcomes = await self._take_steps(key, [limit.params.basis()], cost)
        need = None if outcomes is None else basis_of(outcomes[0])
        if need is not None:
            self.tally.note_held(key, limit.rule.name, need.have, now_us)
        if need is None or not need.low:
            return None
        peer = self._client.choose_peer(key, need.id, whole_shares(limit.rule), cost - need.have, now_us)
        if peer is None or peer not in self._peers:
            await self._back_off(key, need.id, start_us(grid, need.id + 1), now_us)
            return None
        incarnation = self.incarnations.get(peer, 0)
        outcomes = await self._take_steps(key, [limit.params.known(peer, incarnation, need.id)])
        if outcomes is None:
            return None
        known, self.incarnations[self._region] = known_total(outcomes[0])
        await self._end_back_off(key)
        ask = Ask(key, need.id, incarnation, known.units, known.quanta, need.have, need.rate, *limit.params.scale)
        asked_us = self._clock.now_us()
        retry_us = self._client.note_asked(key, need.id, peer, asked_us)
        asyncio.get_running_loop().call_later((retry_us - asked_us) / 1e6, self.note_low, key, cost)
        return peer, RightsRequest(key, limit, ask, cost, asked_us)

    async def _send(self, peer: str, requests: Sequence[RightsRequest]) -> None:
        """Send requests to one peer and take its gifts."""
        asks = Asks(
            region=self._region, incarnation=self.incarnations.get(self._region, 0),
            sent_at=self._clock.now_us() / 1e6, asks=tuple(request.ask for request in requests),
        )  # fmt: skip
        self.tally.messages[peer] += 1
        self.tally.asked[peer] += len(requests)
        try:
            gifts = await self._transport.ask(peer, self._peers[peer], asks)
        except (UnreachablePeerError, KeyError):
            self.tally.failures[peer] += 1
            return
        self._note_incarnation(peer, gifts.incarnation)
        by_key = {gift.key: gift for gift in gifts.gifts}
        taken = (self._take_gift(request, gifts, by_key[request.key]) for request in requests if request.key in by_key)
        for outcome in await asyncio.gather(*taken, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, StoreUnavailableError):
                raise outcome

    async def _take_gift(self, request: RightsRequest, gifts: Gifts, gift: Gift) -> None:
        if not is_plausible(request, gifts, gift):
            self.tally.refused["implausible_gift"] += 1
            return
        key, total = request.key, Total(gift.units, gift.quanta)
        receive = request.limit.params.receive(gifts.region, gifts.incarnation, gifts.to_incarnation, gift.id, total)
        outcomes = await self._take_steps(key, [receive], request.cost)
        if outcomes is None:
            return
        taken = received(outcomes[0])
        now_us = self._clock.now_us()
        answer = RightsAnswer(gifts.region, gift.id, gift.have, gift.is_empty, request.asked_us)
        self._client.note_answer(key, answer, taken.gained, now_us, refill_us=_refill_us(request))
        if taken.gained:
            await self._end_back_off(key)
        self.tally.units_received[gifts.region] += taken.gained
        self.tally.note_held(key, request.limit.rule.name, request.ask.have + taken.gained, now_us)
        if taken.low:
            self.note_low(key, request.cost)

    async def _take_steps(self, key: bytes, items: Sequence[bytes], cost: int = 0) -> list[Outcome] | None:
        """Take steps on one counter in one script call (``lua/transfers.lua``), beside decisions.

        ``cost`` is that of the request that has too few rights. ``None``: the epoch marker refuses this process.
        """
        outcomes, _ = await ask_store(self._store, [key] * len(items), items, cost)
        if is_refused(outcomes):
            self.tally.refused["marker"] += 1
            return None
        return outcomes

    async def _back_off(self, key: bytes, id: int, ends_us: int, now_us: int) -> None:
        back_off = self._client.back_off(key, id, ends_us, now_us)
        self.low.back_off(key, back_off.until_us, now_us)
        if back_off.until_us > now_us:
            await self._inbox.back_off(key, back_off.until_us - now_us, hopeless=back_off.hopeless)

    async def _end_back_off(self, key: bytes) -> None:
        if self.low.end_back_off(key):
            await self._inbox.end_back_off(key)

    def _note_incarnation(self, peer: str, incarnation: int) -> None:
        if incarnation:
            self.incarnations[peer] = incarnation

    def _refresh_peers(self) -> None:
        regions = self._index().book.regions
        peers = {
            name: region.peer_url
            for name, region in regions.items()
            if name != self._region and region.peer_url is not None
        }
        if peers.keys() != self._peers.keys():
            self._client.set_peers(peers)
        self._peers = peers

    def _forget_idle(self) -> None:
        """Forget idle counters now and then; forget all of them if the clock was set back."""
        before_us, self._last_run_us = self._last_run_us, self._clock.now_us()
        now_us, set_back = self._last_run_us, self._last_run_us < before_us
        if set_back or now_us - self._forgot_us > FORGET_AFTER_US:
            self._forgot_us = now_us
            self._client.forget_idle(sys.maxsize if set_back else now_us - FORGET_AFTER_US)
            self.low.forget(now_us)


def _refill_us(request: RightsRequest) -> int:
    """How long the whole bucket takes to fill by the missing units; 0 for windows, which do not fill."""
    if not request.limit.params.is_bucket:
        return 0
    rule = request.limit.rule
    missing = max(1, request.cost - request.ask.have)
    return max(1, missing * nominal_window_us(rule) // rule.limit)
