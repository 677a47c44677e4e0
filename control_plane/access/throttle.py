"""A bound on wrong credentials, in memory, per replica, of a fixed size.

They are counted by address and how the credential begins, and with more room by address alone: who varies the
beginning is counted all the same. Behind an ingress everybody has one address. So the count refuses nobody whose
credential is in force: those are known from memory (``live.py``) and pass first. What others cost is bounded by a
narrow gate in front of the look-up.
"""

import asyncio
import ipaddress
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, NamedTuple, TypeVar

Key = TypeVar("Key")

WINDOW_S = 60.0
MAX_ATTEMPTERS = 10_000
LOOK_UPS_AT_ONCE = 2
LOOK_UP_DELAY_S = 0.05
MAX_WAITING = 100
SHOWN_CHARACTERS = 8
ADDRESS_FACTOR = 5
"""How many times as many wrong credentials an address may send as one beginning from there."""


class Attempter(NamedTuple):
    """Who tries: an address (of IPv6 the /64, all of which is one caller's), and how the credential begins."""

    address: str
    prefix: str

    @classmethod
    def of(cls, address: str, secret: str) -> "Attempter":
        """Who tries this secret."""
        return cls(_site(address), secret[:SHOWN_CHARACTERS])


def _site(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed.packed[:8] + bytes(8), 64)))


class _Failures(NamedTuple):
    since_s: float
    failures: int


class FailureCounter(Generic[Key]):
    """Counts failures per key in windows of a minute; who is longest without a failure is forgotten first."""

    def __init__(self, max_failures: int) -> None:
        self._max = max_failures
        self._failures: OrderedDict[Key, _Failures] = OrderedDict()

    def blocked_for_s(self, key: Key, now_s: float) -> float:
        """How long ``key`` counts as guessing; 0 when it does not."""
        seen = self._failures.get(key)
        if seen is None or seen.failures < self._max:
            return 0.0
        return max(0.0, seen.since_s + WINDOW_S - now_s)

    def failed(self, key: Key, now_s: float) -> None:
        """Count one wrong credential."""
        seen = self._failures.pop(key, None)
        if seen is None or now_s >= seen.since_s + WINDOW_S:
            seen = _Failures(now_s, 0)
        self._failures[key] = _Failures(seen.since_s, seen.failures + 1)
        while len(self._failures) > MAX_ATTEMPTERS:
            self._failures.popitem(last=False)


class FailureThrottle:
    """Both counts: ``max_failures`` a minute for one beginning from one address, ``ADDRESS_FACTOR`` times as many for
    the address.
    """

    def __init__(self, max_failures: int) -> None:
        self._beginnings: FailureCounter[Attempter] = FailureCounter(max_failures)
        self._addresses: FailureCounter[str] = FailureCounter(max_failures * ADDRESS_FACTOR)

    def blocked_for_s(self, attempter: Attempter, now_s: float) -> float:
        """How long ``attempter``, or everybody at its address, counts as guessing; 0 when neither does."""
        by_beginning = self._beginnings.blocked_for_s(attempter, now_s)
        return max(by_beginning, self._addresses.blocked_for_s(attempter.address, now_s))

    def failed(self, attempter: Attempter, now_s: float) -> None:
        """Count one wrong credential."""
        self._beginnings.failed(attempter, now_s)
        self._addresses.failed(attempter.address, now_s)


class NarrowGate:
    """Lets two look-ups through at a time, 50 ms each: 40 guesses a second at most, and the database hardly notices."""

    def __init__(self, delay_s: float = LOOK_UP_DELAY_S) -> None:
        self._delay_s = delay_s
        self._turns = asyncio.Semaphore(LOOK_UPS_AT_ONCE)
        self._waiting = 0

    @property
    def full(self) -> bool:
        """Whether so many wait that another one would wait for seconds."""
        return self._waiting >= MAX_WAITING

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn and hold it while the block runs."""
        self._waiting += 1
        try:
            async with self._turns:
                await asyncio.sleep(self._delay_s)
                yield
        finally:
            self._waiting -= 1
