"""Links between regions: what is sent may be late, lost, doubled, overtaken, or cut off."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

import msgspec

from data_plane.store.ports import StoreUnavailableError, UnreachablePeerError
from tidegate.contract.counts import Counts, CountsAnswer
from tidegate.contract.rights import Asks, Gifts
from tools.simulate.record import Record
from tools.simulate.scenario import Fault, Network

TIMEOUT_S = 1.5
"""How long nodes wait for a peer's answer (``data_plane/replicate/peer_session.py``)."""
_counts = msgspec.msgpack.Decoder(Counts)
AnswerT = TypeVar("AnswerT", bound=msgspec.Struct)


class Links:
    """The state of the network: cuts and delays that last now."""

    def __init__(self, network: Network, chance: random.Random, record: Record) -> None:
        self._network = network
        self._chance = chance
        self._record = record
        self._cuts: list[Fault] = []
        self._delays: list[Fault] = []

    def begin(self, fault: Fault) -> None:
        """Begin a cut or a delay."""
        (self._cuts if fault.kind == "cut" else self._delays).append(fault)

    def end(self, fault: Fault) -> None:
        """End a cut or a delay."""
        (self._cuts if fault.kind == "cut" else self._delays).remove(fault)

    def calm(self) -> None:
        """From now on no message is lost, doubled or slower than usual."""
        self._network = msgspec.structs.replace(self._network, spikes=0.0, loss=0.0, duplicates=0.0)

    def is_cut(self, sender: str, receiver: str) -> bool:
        """Whether messages in this direction are lost."""
        return any(_cuts(fault, sender, receiver) for fault in self._cuts)

    def note_gifts(self, gifts: Gifts) -> None:
        """Note gifts of an answer, for the number of transfers."""
        self._record.transfers += sum(not gift.is_empty for gift in gifts.gifts)

    def delays_s(self, sender: str, receiver: str, kind: str) -> list[float]:
        """After how many seconds each copy of a message arrives: none where it is lost."""
        self._record.messages[kind] += 1
        if self.is_cut(sender, receiver):
            return []
        chance, network = self._chance, self._network
        copies = 2 if network.duplicates and chance.random() < network.duplicates else 1
        found = []
        for _ in range(copies):
            if network.loss and chance.random() < network.loss:
                continue
            delay_ms = network.delay_ms + network.jitter_ms * (2 * chance.random() - 1)
            if network.spikes and chance.random() < network.spikes:
                delay_ms *= 10
            delay_s = max(0.000_1, delay_ms / 1_000)
            for fault in self._delays:
                if fault.region == sender and fault.peer in ("", receiver):
                    delay_s += fault.by_s
            self._record.most_delay_us = max(self._record.most_delay_us, round(delay_s * 1e6))
            found.append(delay_s)
        return found


def _cuts(fault: Fault, sender: str, receiver: str) -> bool:
    if fault.one_way:
        return sender in fault.groups[1] and receiver in fault.groups[0]
    inside = [group for group in fault.groups if sender in group]
    return bool(inside) and receiver not in inside[0] and any(receiver in group for group in fault.groups)


class Peer(Protocol):
    """A process of another region that takes messages."""

    async def take_counts(self, counts: Counts) -> CountsAnswer:
        """Merge a region's counts. Raises ``StoreUnavailableError``."""
        ...

    async def take_asks(self, asks: Asks) -> Gifts:
        """Answer requests for rights. Raises ``StoreUnavailableError``."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that ends with the process."""
        ...


class SimulatedPeers:
    """Ports ``PeerTransport`` and ``RightsTransport``: messages travel as bytes to some live agent of a region."""

    def __init__(self, region: str, links: Links, any_agent: Callable[[str], Peer | None]) -> None:
        self._region = region
        self._links = links
        self._any_agent = any_agent

    async def send(self, to_region: str, url: str, message: bytes) -> CountsAnswer:  # noqa: ARG002 - the port's
        """Deliver one message. Raises ``UnreachablePeerError``."""
        return await self._exchange(
            to_region, CountsAnswer, "Counts", lambda peer: peer.take_counts(_counts.decode(message))
        )

    async def ask(self, to_region: str, url: str, asks: Asks) -> Gifts:  # noqa: ARG002 - the port's
        """Send requests for rights. Raises ``UnreachablePeerError``."""
        body = msgspec.msgpack.encode(asks)
        gifts = await self._exchange(
            to_region, Gifts, "Asks", lambda peer: peer.take_asks(msgspec.msgpack.decode(body, type=Asks))
        )
        self._links.note_gifts(gifts)
        return gifts

    async def _exchange(
        self, to_region: str, answer_type: type[AnswerT], kind: str, take: Callable[[Peer], Awaitable[AnswerT]]
    ) -> AnswerT:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[AnswerT] = loop.create_future()

        def arrive(answer: AnswerT | None) -> None:
            if answered.done():
                return
            if answer is None:
                answered.set_exception(UnreachablePeerError("answered 503"))
            else:
                answered.set_result(msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=answer_type))

        async def serve(peer: Peer) -> None:
            answer: AnswerT | None = None
            with contextlib.suppress(StoreUnavailableError):
                answer = await take(peer)
            self._send(to_region, self._region, answer_type.__name__, arrive, answer)

        def deliver() -> None:
            peer = self._any_agent(to_region)
            if peer is not None:
                peer.spawn(serve(peer))

        self._send(self._region, to_region, kind, deliver)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await answered
        except TimeoutError:
            raise UnreachablePeerError("no answer") from None

    def _send(self, sender: str, receiver: str, kind: str, call: Callable[..., None], *arguments: object) -> None:
        loop = asyncio.get_running_loop()
        for delay_s in self._links.delays_s(sender, receiver, kind):
            loop.call_later(delay_s, call, *arguments)
