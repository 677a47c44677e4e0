"""Probes a server whose circuit is open, so that it is found again without waiting for a client's check."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from data_plane.store.packing import encode_rule
from data_plane.store.ports import CallbackCheck, CounterCheck, StoreUnavailableError
from data_plane.store.redis.circuit import Circuit
from data_plane.store.redis.reasons import Reason
from tidegate.contract.limits import LimitRule

log = logging.getLogger(__name__)

PROBE_KEY = b"tg:probe"
_PROBE = encode_rule(LimitRule(id=0, name="probe", algorithm="fixed_window", limit=2**40, window_us=1_000_000))
SAID_EVERY_S = 10.0
"""Logs of a store that comes and goes are no more frequent."""


def probe_check(key: bytes) -> CounterCheck:
    """The probe's decision. It writes, as those of clients do: a full store or a replica fails it too."""
    return CallbackCheck((key,), (_PROBE,), 1, _forgotten)


class Prober:
    """Probes an open circuit as soon as its wait is over. ``submit`` says whether the probe could be sent."""

    def __init__(self, circuit: Circuit, submit: Callable[[], bool], again_s: float) -> None:
        self._circuit = circuit
        self._submit = submit
        self._again_s = again_s
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """The circuit opened, or there is a connection to probe by."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(max(self._circuit.retry_at, self._loop.time()), self._probe)

    def stop(self) -> None:
        """Stop probing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _probe(self) -> None:
        self._timer = None
        # half open: a decision is the probe; what comes of it wakes us, or closes the circuit
        if self._circuit.state == "open" and not self._submit():
            self._timer = self._loop.call_later(self._again_s, self._probe)


class Trouble:
    """Why a server was given up; ``None`` while it decides. Says so in the log, and when it decides again."""

    def __init__(self) -> None:
        self.reason: Reason | None = None
        self._began_at = 0.0
        self._said_at: float | None = None
        self._is_said = False

    def began(self, reason: Reason, now: float) -> None:
        """The circuit is open, because of ``reason``."""
        if self.reason is None:
            self._began_at = now
            self._is_said = self._said_at is None or now - self._said_at >= SAID_EVERY_S
            if self._is_said:
                self._said_at = now
                log.warning("the store does not decide (%s): decisions are made without it", reason)
        if self.reason is None or reason != "connection_lost":  # we may have dropped it ourselves, for what it said
            self.reason = reason

    def ended(self, now: float) -> None:
        """It decided something."""
        if self.reason is not None:
            self.reason = None
            if self._is_said:
                log.warning("the store decides again, after %.1f s", now - self._began_at)


def _forgotten(_answer: Sequence[object] | StoreUnavailableError, _now_us: int) -> None:
    """The probe needs no answer."""
