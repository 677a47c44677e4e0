"""Ways to protect a backend: a fixed limit, two concurrency limits of the literature, and none at all.

``Gradient2`` and ``Aimd`` follow the formulas and default constants that Netflix publishes with its library
concurrency-limits ("Performance Under Load", 2018, and the library's documentation), written from those formulas.
"""

from typing import Protocol

from data_plane.store.local_counters import LocalCounters
from data_plane.store.packing import encode_rule
from data_plane.store.script_host import ScriptHost
from tidegate.contract.limits import LimitRule
from tools.simulate.overload.backend import Done, Request


class Limiter(Protocol):
    """Decides who may pass, and learns from what became of them."""

    name: str

    def admits(self, request: Request) -> bool:
        """Whether a request may pass."""
        ...

    def done(self, done: Done) -> None:
        """A request that passed was answered."""
        ...

    def dropped(self, request: Request) -> None:
        """The backend refused a request that passed."""
        ...

    def factor(self) -> float | None:
        """What is plotted beside the load: the admission factor, where there is one."""
        ...


class Unprotected:
    """Everybody passes."""

    name = "no limit"

    def admits(self, request: Request) -> bool:  # noqa: ARG002
        """Yes."""
        return True

    def done(self, done: Done) -> None:
        """Learns nothing."""

    def dropped(self, request: Request) -> None:
        """Learns nothing."""

    def factor(self) -> float | None:
        """None."""
        return None


class Fixed(Unprotected):
    """A token bucket of so many units a second, by the rules that nodes decide by."""

    name = "fixed limit"

    def __init__(self, per_second: float) -> None:
        self._counters = LocalCounters(ScriptHost(), 1)
        rule = LimitRule(
            id=1, name="fixed", scope="global", algorithm="token_bucket", limit=round(per_second), window_us=1_000_000
        )
        self._params = [encode_rule(rule)]

    def admits(self, request: Request) -> bool:
        """While there are tokens."""
        (outcome,) = self._counters.check([b"fixed"], self._params, 1, round(request.at_s * 1e6))
        return outcome.allowed


class _Concurrency:
    """At most ``limit`` requests in flight."""

    def __init__(self, initial: float, least: float, most: float) -> None:
        self.limit = initial
        self._least, self._most = least, most
        self.in_flight = 0

    def admits(self, request: Request) -> bool:  # noqa: ARG002
        """While fewer are in flight."""
        if self.in_flight >= int(self.limit):
            return False
        self.in_flight += 1
        return True

    def factor(self) -> float | None:
        """None: it limits what is in flight, not what comes."""
        return None

    def _bounded(self, limit: float) -> float:
        return max(self._least, min(self._most, limit))


class Gradient2(_Concurrency):
    """Gradient of a long average of round-trip times over the newest, with a small queue allowed.

    gradient = max(0.5, min(1, tolerance x long / short)); limit <- (1 - s) limit + s (limit x gradient + queue).
    Nothing changes while less than half of the limit is in use; a long average more than twice the newest decays.
    """

    name = "Gradient2"
    TOLERANCE, QUEUE, SMOOTHING, WINDOW, WARM_UP = 1.5, 4, 0.2, 600, 10

    def __init__(self) -> None:
        super().__init__(20, 20, 200)
        self._long_s = 0.0
        self._seen = 0

    def done(self, done: Done) -> None:
        """One round-trip time more."""
        in_flight = self.in_flight
        self.in_flight -= 1
        self._average(done.rtt_s)
        if self._long_s / done.rtt_s > 2:
            self._long_s *= 0.95
        if in_flight < self.limit / 2:
            return
        gradient = max(0.5, min(1.0, self.TOLERANCE * self._long_s / done.rtt_s))
        aim = self.limit * gradient + self.QUEUE
        self.limit = self._bounded(self.limit * (1 - self.SMOOTHING) + aim * self.SMOOTHING)

    def dropped(self, request: Request) -> None:  # noqa: ARG002
        """It does not look at drops, only at times."""
        self.in_flight -= 1

    def _average(self, rtt_s: float) -> None:
        self._seen += 1
        if self._seen <= self.WARM_UP:
            self._long_s += (rtt_s - self._long_s) / self._seen
        else:
            self._long_s += (rtt_s - self._long_s) * 2 / (self.WINDOW + 1)


class Aimd(_Concurrency):
    """One more while the limit is in use, a tenth less for each request that was dropped or took too long."""

    name = "AIMD"
    BACKOFF, TIMEOUT_S = 0.9, 5.0

    def __init__(self) -> None:
        super().__init__(20, 20, 200)

    def done(self, done: Done) -> None:
        """A time, or a time-out."""
        in_flight = self.in_flight
        self.in_flight -= 1
        if done.rtt_s > self.TIMEOUT_S:
            self.limit = self._bounded(self.limit * self.BACKOFF)
        elif in_flight * 2 >= self.limit:
            self.limit = self._bounded(self.limit + 1)

    def dropped(self, request: Request) -> None:  # noqa: ARG002
        """A drop."""
        self.in_flight -= 1
        self.limit = self._bounded(self.limit * self.BACKOFF)
