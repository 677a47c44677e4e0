"""What a region takes of a peer's word on rights, over a store that plays its part."""

import asyncio
import contextlib
import struct

import pytest

from data_plane.config.index import ConfigSet, RuleIndex
from data_plane.rights.exchange import RightsExchange
from data_plane.store.packing import Outcome, figures_of
from data_plane.store.ports import UnreachablePeerError
from testing.node import document_of, rule
from tidegate.bundled import directory
from tidegate.contract.config import Plan, Region
from tidegate.contract.rights import MAX_QUANTA, MAX_UNITS, Ask, Asks, Gift, Gifts

NOW_US = 1_700_000_000_000_000
OWN_INCARNATION, INCARNATION = 5, 7
BUCKET = {"algorithm": "token_bucket", "burst": 100, "window_us": 1_000_000}
UNIT = 10_000 * 100
"""Quanta in a unit: 100 a second are one in 10,000 us, and 100 of them fit."""


class Clock:
    us = NOW_US

    def now_us(self):
        return self.us


class Store:
    """Has too little, knows of ``known`` (units, quanta), and takes what comes."""

    def __init__(self, known):
        self.known = known
        self.taken = []
        self.given = Outcome(False, 0, 0, 0, 0)

    def submit(self, check):
        outcomes = [self._step(int(struct.unpack_from("<d", item, 9)[0]), item) for item in check.params]
        check.done(figures_of(NOW_US, outcomes), 1, NOW_US)

    def _step(self, step, item):
        if step == 3:  # basis: nothing there, low; the id is the epoch of now
            return Outcome(True, 1, 50, 0, NOW_US // 600_000_000)
        if step == 1:
            return self.given
        if step == 4:  # known
            return Outcome(True, *self.known, 0, OWN_INCARNATION)
        self.taken.append(item)
        return Outcome(True, 1, 200, 0, 1)


class Transport:
    """Answers with one gift; ``gift`` is all that was ever given. Without one it is away."""

    def __init__(self, gift):
        self.gift = gift
        self.asked = asyncio.Event()

    async def ask(self, to_region, url, asks):
        self.asked.set()
        if self.gift is None:
            raise UnreachablePeerError("away")
        ask = asks.asks[0]
        return Gifts(
            region=to_region, incarnation=INCARNATION, to_incarnation=asks.incarnation, sent_at=NOW_US / 1e6,
            gifts=(Gift(ask.key, ask.id, *self.gift, 10, False),),
        )  # fmt: skip


class Inbox:
    """Nodes report nothing; back-offs are kept."""

    def __init__(self):
        self.back_offs = {}

    async def take(self):
        await asyncio.Event().wait()

    async def back_off(self, key, for_us, *, hopeless):
        self.back_offs[key] = (for_us, hopeless)

    async def end_back_off(self, key):
        self.back_offs.pop(key, None)


@contextlib.asynccontextmanager
async def exchange_of(store, transport, clock):
    """An exchange at work."""
    strict = rule(1, "exact", 100, mode="strict", shares={"us-east": 50, "eu-west": 50}, **BUCKET)
    regions = [Region(region="us-east"), Region(region="eu-west", peer_url="http://west")]
    config = ConfigSet.empty().with_changes(map(document_of, [Plan(plan="p", limits=(strict,)), *regions]))
    index = RuleIndex.of("us-east", config)
    exchange = RightsExchange("us-east", store, transport, clock, lambda: index, lambda: 1, Inbox(), lambda: True)
    exchange.incarnations["eu-west"] = INCARNATION
    work = asyncio.create_task(exchange.run())
    try:
        async with asyncio.timeout(5):
            yield exchange
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        await exchange.stop()


async def taken(known, gift):
    """Whether the store was handed a gift, and what was refused."""
    store, transport = Store(known), Transport(gift)
    async with exchange_of(store, transport, Clock()) as exchange:
        exchange.note_low(b"{acme}1", 1)
        await transport.asked.wait()
        await asyncio.gather(*exchange.under_way)
    return len(store.taken), dict(exchange.tally.refused)


@pytest.mark.parametrize(
    ("known", "gift"),
    [
        ((0, 0), (40, 40 * UNIT)),
        ((80, 80 * UNIT), (120, 120 * UNIT)),  # lent, lent back and lent again: more in all than there ever is at once
        ((10**9, 10**9 * UNIT), (10**9 + 50, 10**9 * UNIT)),
    ],
)
async def test_what_is_new_in_a_gift_is_taken_however_much_was_given_before(known, gift):
    assert await taken(known, gift) == (1, {})


@pytest.mark.parametrize(
    ("known", "gift"),
    [
        ((0, 0), (101, 0)),
        ((80, 0), (181, 0)),
        ((80, 0), (90, 10 * UNIT + 1)),
        ((0, 0), (10, -1)),
        ((80, 80 * UNIT), (90, 79 * UNIT)),
        ((0, MAX_QUANTA - UNIT), (10, MAX_QUANTA)),
        ((MAX_UNITS - 1, 0), (MAX_UNITS, 0)),
    ],
)
async def test_what_nobody_can_have_had_to_give_is_refused(known, gift):
    assert await taken(known, gift) == (0, {"implausible_gift": 1})


def test_donors_and_receivers_have_one_bound():
    script = (directory("lua") / "transfers.lua").read_text("utf-8")
    assert f"local MAX_UNITS, MAX_QUANTA = {MAX_UNITS}, {MAX_QUANTA}\n" in script


async def test_known_fields_once_more_is_not_given_twice():
    """A question that knows less than was given is answered with all of it: nothing is added."""
    store = Store((0, 0))
    async with exchange_of(store, Transport(None), Clock()) as exchange:
        for flag, given in ((0, 40), (2, 40), (0, 80)):  # 2: the donor's store said it again
            store.given = Outcome(True, 40, 50 * 4 + flag, 0, 0)
            asks = Asks(
                region="eu-west",
                incarnation=INCARNATION,
                sent_at=0,
                asks=(Ask(b"{acme}1", 1, OWN_INCARNATION, 0, 0, 0, 0),),
            )
            (gift,) = (await exchange.give(asks)).gifts
            assert (gift.units, gift.have, gift.is_empty) == (40, 50, False)
            assert exchange.tally.units_given["eu-west"] == given


async def test_an_answer_has_gifts_of_one_epoch_of_the_donor_s_store():
    """The store may come back between two steps. Under another epoch's name a total would count once more in full."""
    store = Store((0, 0))
    keys = [b"{acme}1", b"{other}1"]
    epochs = iter((3, 4))

    def submit(check):
        outcomes = [Outcome(True, 40, 50 * 4, 0, 0), Outcome(True, 0, 0, 0, next(epochs))]
        check.done(figures_of(NOW_US, outcomes), 1, NOW_US)

    store.submit = submit
    async with exchange_of(store, Transport(None), Clock()) as exchange:
        asks = tuple(Ask(key, 1, OWN_INCARNATION, 0, 0, 0, 0) for key in keys)
        gifts = await exchange.give(Asks(region="eu-west", incarnation=INCARNATION, sent_at=0, asks=asks))
    assert (gifts.incarnation, [gift.key for gift in gifts.gifts]) == (4, [b"{other}1"])


async def test_a_node_asks_again_although_its_clock_was_set_back():
    clock, transport = Clock(), Transport(None)
    async with exchange_of(Store((0, 0)), transport, clock) as exchange:
        exchange.note_low(b"{acme}1", 1)
        await transport.asked.wait()
        transport.asked.clear()
        clock.us += 500_000  # whoever was asked is passed over
        exchange.note_low(b"{acme}1", 1)
        while not exchange.low.backing_off:
            await asyncio.sleep(0)
        clock.us -= 3_600_000_000
        exchange.note_low(b"{acme}1", 1)
        await transport.asked.wait()
