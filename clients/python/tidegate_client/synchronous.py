"""``Tidegate``: the same client for threads. I/O runs on one background loop; what is held is decided right here."""

import asyncio
import contextlib
import functools
import os
import threading
import time
import weakref
from collections.abc import Container, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, Self, TypeVar

from tidegate_client.asynchronous import AsyncTidegate
from tidegate_client.credentials import RefusedKeyError, key_in
from tidegate_client.leases import is_whole
from tidegate_client.messages import Check, Decision, InvalidCheckError, refusal
from tidegate_client.options import Options
from tidegate_client.reservations import Reservation

T = TypeVar("T")
_SLACK_S = 0.2
_CLOSING = 3
"""Closing asks up to so often: it returns leases, and waits for settlements."""
STUCK = "the background loop does not answer"
_living: "weakref.WeakSet[Tidegate]" = weakref.WeakSet()


@functools.cache
def _follow_forks() -> None:
    """Once a process: what is registered for forks stays for ever."""

    def forked() -> None:
        for client in list(_living):
            client._forked()  # noqa: SLF001  # our own

    os.register_at_fork(after_in_child=forked)


class Tidegate:
    """Ask Tidegate from any thread. After a fork the child begins afresh: leases are never shared."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._starting = threading.Lock()
        self._begin()
        _follow_forks()
        _living.add(self)

    def _forked(self) -> None:
        self._starting = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._inner = AsyncTidegate(self.options, lock=self._lock)
        self.book = self._inner.book
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Ready at once: the background loop starts with the first question."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def check(
        self, *, api_key: str | None = None, client: str | None = None, ip: str | None = None,
        method: str | None = None, path: str | None = None, endpoint: str | None = None,
        attributes: Mapping[str, str] | None = None, cost: int = 1,
    ) -> Decision:  # fmt: skip
        """As ``AsyncTidegate.check``."""
        pairs = tuple(sorted(attributes.items())) if attributes else ()
        return self.decide(Check(api_key, client, ip, method, path, endpoint, pairs), cost)

    def decide(self, check: Check, cost: int = 1) -> Decision:
        """As ``AsyncTidegate.decide``: without I/O where a lease or a remembered denial decides."""
        if is_whole(cost):
            with self._lock:
                decision = self.book.take(check, cost, time.monotonic())
            if decision is not None:
                loop = self._loop
                if self.book.low and loop is not None:
                    with contextlib.suppress(RuntimeError):  # closed meanwhile
                        loop.call_soon_threadsafe(self._inner.renew_low)
                return decision
        try:
            return self._run(self._inner.ask(check, cost))
        except TimeoutError:
            return self._inner.unanswered(STUCK)

    def mistaken(self, error: InvalidCheckError, fixed: Container[str]) -> Decision | None:
        """As ``AsyncTidegate.mistaken``."""
        return self._inner.mistaken(error, fixed)

    def check_many(self, checks: Iterable[tuple[Check, int]]) -> list[Decision | InvalidCheckError]:
        """As ``AsyncTidegate.check_many``."""
        wanted = list(checks)
        try:
            return self._run(self._inner.check_many(wanted))
        except TimeoutError:
            return [self._inner.unanswered(STUCK) for _ in wanted]

    def authorize(
        self, *, method: str, path: str, headers: Iterable[tuple[str, str]] = (), ip: str | None = None, cost: int = 1
    ) -> Decision:
        """As ``AsyncTidegate.authorize``."""
        try:
            api_key = key_in(headers)
        except RefusedKeyError as error:
            return refusal(401, error.error, str(error))
        return self.check(api_key=api_key, ip=ip, method=method, path=path, cost=cost)

    @contextlib.contextmanager
    def reserve(self, estimate: int, **members: Any) -> Iterator[Reservation]:
        """As ``AsyncTidegate.reserve``."""
        manager = self._inner.reserve(estimate, **members)
        try:
            reservation = self._run(manager.__aenter__())
        except TimeoutError:
            yield Reservation(self._inner.unanswered(STUCK), 0)
            return
        try:
            yield reservation
        except BaseException as error:
            with contextlib.suppress(TimeoutError):
                self._run(manager.__aexit__(type(error), error, error.__traceback__))
            raise
        with contextlib.suppress(TimeoutError):  # unsettled, the estimate stands
            self._run(manager.__aexit__(None, None, None))

    def close(self) -> None:
        """Return what is held and stop the background loop, whatever state it is in."""
        with self._starting:
            loop, thread, inner = self._loop, self._thread, self._inner
            if loop is None or thread is None:
                return
            try:
                closing = asyncio.run_coroutine_threadsafe(inner.aclose(), loop)
                closing.result(_CLOSING * self.options.timeout_s + _SLACK_S)
            except TimeoutError:
                closing.cancel()
            finally:
                loop.call_soon_threadsafe(loop.stop)
                thread.join(_SLACK_S)
                self._begin()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Its result. Raises ``TimeoutError`` where the background loop is stuck (all that it does has a deadline), and
        where another thread closes it meanwhile.
        """
        try:
            running = asyncio.run_coroutine_threadsafe(work, self.background_loop())
        except RuntimeError as error:
            work.close()
            raise TimeoutError from error
        try:
            return running.result(self.options.timeout_s + _SLACK_S)
        except TimeoutError:
            running.cancel()
            raise
        except CancelledError as error:
            raise TimeoutError from error

    def background_loop(self) -> asyncio.AbstractEventLoop:
        """The loop that does the I/O; it starts when it is first needed."""
        loop = self._loop
        if loop is None:
            with self._starting:
                loop = self._loop
                if loop is None:
                    loop = asyncio.new_event_loop()
                    self._thread = threading.Thread(target=_serve, args=(loop,), name="tidegate-client", daemon=True)
                    self._thread.start()
                    self._loop = loop
        return loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(asyncio.sleep(0))  # what other threads handed over before it stopped
        unfinished = asyncio.all_tasks(loop)
        for task in unfinished:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*unfinished, return_exceptions=True))
        loop.close()
