"""One server's queue of decisions: forms batches, keeps deadlines, and stops waiting when the circuit opens."""

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from data_plane.store.packing import FIGURES, outcomes_of
from data_plane.store.ports import CounterCheck
from data_plane.store.redis.calls import Answers, Call, CallBuilder, Link, by_slot, pack_command
from data_plane.store.redis.circuit import PROBE_KEY, Backoff, Circuit, Prober, Trouble, probe_check
from data_plane.store.redis.connect import Connector
from data_plane.store.redis.keeper import LinkKeeper
from data_plane.store.redis.settings import RedisSettings
from data_plane.store.redis.split import GiveBack, consumed
from data_plane.store.redis.status import Reason, ShardStatus, StoreStats, classify, error_code

if TYPE_CHECKING:
    from data_plane.store.redis.cluster import Cluster

TICKS_PER_DEADLINE = 4
CLUSTER_CALLS_IN_FLIGHT = 256


class Shard:
    """Decides on one server. ``submit`` costs an append; what arrives while calls are in flight rides in the next."""

    def __init__(
        self,
        settings: RedisSettings,
        *,
        script: str,
        connector: Connector,
        stats: StoreStats,
        random: Callable[[], float],
        give_back: GiveBack,
        dirty_key: bytes,
        cluster: "Cluster | None",
    ) -> None:
        self._script = script
        self._give_back = give_back
        self._cluster = cluster
        self._stats = stats
        self._answers = Answers(stats)
        self._builder = CallBuilder(settings, self._answers, dirty_key, cluster)
        self._max_pending = settings.max_pending
        self._max_calls = settings.max_in_flight if cluster is None else CLUSTER_CALLS_IN_FLIGHT
        self._worth_a_call = settings.worth_a_second_call if cluster is None else 1
        self._deadline_s = settings.deadline_ms / 1000
        self._queue_s = settings.max_queue_ms / 1000
        self._tick_s = self._deadline_s / TICKS_PER_DEADLINE
        self._stall_s = settings.stall_reconnect_ms / 1000
        base_s, cap_s = settings.backoff_base_ms / 1000, settings.backoff_cap_ms / 1000
        self.circuit = Circuit(
            window_s=settings.circuit_window_ms / 1000,
            min_failures=settings.circuit_min_failures,
            backoff=Backoff(base_s=base_s, cap_s=cap_s, random=random),
        )
        self.keeper = LinkKeeper(
            connector,
            Backoff(base_s=base_s, cap_s=cap_s, random=random),
            stats,
            on_open=self._on_open,
            on_lost=self._on_lost,
            on_failure=self._on_connect_failure,
        )
        self._prober = Prober(self.circuit, self._probe, self._tick_s)
        self._trouble = Trouble()
        self._uncounted = 0
        """Answers since a closed circuit counted them last: it needs them only beside failures."""
        self._loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._pending: list[CounterCheck] = []
        self._times: list[float] = []
        self.in_flight = 0
        self.flush_scheduled = False
        self._tick_timer: asyncio.TimerHandle | None = None
        self._last_tick = 0.0
        self._closing = False
        self._idle = asyncio.Event()

    def submit(self, check: CounterCheck) -> None:
        """Queue a decision; its ``done`` is called later, never from within this call."""
        if self.circuit.state != "closed" and not self._may_probe():
            self._answers.refuse_soon(check, "circuit_open")
            return
        if len(self._pending) >= self._max_pending or self._closing:
            self._answers.refuse_soon(check, "closed" if self._closing else "overloaded")
            return
        self._pending.append(check)
        self._times.append(self._loop.time())
        if self._tick_timer is None:
            self._arm_tick()
        if not self.flush_scheduled and (not self.in_flight or self._may_send_more()):
            self.flush_scheduled = True
            self._loop.call_soon(self._flush)

    def submit_all(self, checks: Sequence[CounterCheck]) -> None:
        """Queue decisions at once; those beyond what the queue holds are refused."""
        fits = self._max_pending - len(self._pending)
        if self.circuit.state != "closed" or self._closing or len(checks) > fits:
            for check in checks:
                self.submit(check)
            return
        self._pending += checks
        self._times += [self._loop.time()] * len(checks)
        if self._tick_timer is None:
            self._arm_tick()
        if not self.in_flight or self._may_send_more():
            self._schedule_flush()

    def send_moved(self, call: Call) -> None:
        """Send a call that a MOVED redirected here. While it cannot be sent at once, its decisions queue first."""
        if self.keeper.link is not None and self.circuit.state == "closed" and not self._closing:
            self._send_again(call, moves=call.moves + 1)
            return
        checks, times = call.unanswered, call.unanswered_times
        if self.circuit.state != "closed" or self._closing:
            self._answers.refuse(checks, "closed" if self._closing else "circuit_open")
            return
        self._pending[:0] = checks
        self._times[:0] = times
        if self._tick_timer is None:
            self._arm_tick()
        self._schedule_flush()

    def send_alone(self, checks: list[CounterCheck], times: list[float], slot: int) -> None:
        """Send each of these in a call of its own, so that those that can run do not wait for those that cannot yet."""
        link = self.keeper.link
        if link is None:
            self._answers.refuse(checks, "connection_lost")
            return
        for check, time in zip(checks, times, strict=True):
            self._send_all(link, [check], [time], slot)

    def send_asking(self, call: Call) -> None:
        """Send a call that an ASK redirected here: this server does not own the slot yet."""
        self._send_again(call, pack_command(b"ASKING"), moves=call.moves + 1)

    def on_reply(self, call: Call, reply: object) -> None:
        """Answer a batch's decisions from its reply, or from what kept it from running."""
        self.in_flight -= 1
        if type(reply) is bytes:
            self._on_answer(call, reply)
        else:
            self._on_error(call, str(reply))
        if self._pending:
            self._schedule_flush()
        elif self._closing and not self.in_flight:
            self._idle.set()

    def status(self, address: str) -> ShardStatus:
        """The state of this server, reached at ``address``."""
        return ShardStatus(
            address=address,
            connected=self.keeper.link is not None,
            circuit=self.circuit.state,
            circuit_opened=self.circuit.opened,
            problem=self.keeper.last_problem or self._trouble.reason,
            server=self.keeper.facts,
        )

    async def close(self, timeout_s: float) -> None:
        """Refuse new decisions, let those in flight finish within ``timeout_s``, then disconnect."""
        self._closing = True
        self._prober.stop()
        if self.in_flight or self._pending:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._idle.wait()
            except TimeoutError:
                pass
        waiting = await self.keeper.close()
        for taker in waiting:
            if isinstance(taker, Call):
                self._answers.refuse(taker.give_up(), "closed")
        self._refuse_pending("closed")
        self._answers.flush()
        if self._tick_timer is not None:
            self._tick_timer.cancel()

    # Batches

    def _schedule_flush(self) -> None:
        if not self.flush_scheduled:
            self.flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self.flush_scheduled = False
        while self._pending and (not self.in_flight or self._may_send_more()):
            link = self.keeper.link
            if link is None:
                return
            checks, times = self._take()
            if self._cluster is None:
                self._send_all(link, checks, times, None)
                continue
            for slot, (members, member_times) in by_slot(self._cluster, checks, times).items():
                self._send_all(link, members, member_times, slot)

    def _may_send_more(self) -> bool:
        """Whether the queue is worth another call while one is in flight; a probe of the circuit always is."""
        if self.in_flight >= self._max_calls:
            return False
        return len(self._pending) >= self._worth_a_call or self.circuit.state != "closed"

    def _take(self) -> tuple[list[CounterCheck], list[float]]:
        taken = self._builder.fitting(self._pending)
        # The deadline begins now: time spent in our own queue is not the server's fault.
        checks, times = self._pending[:taken], [self._loop.time()] * taken
        del self._pending[:taken]
        del self._times[:taken]
        return checks, times

    def _send_all(self, link: Link, checks: list[CounterCheck], times: list[float], slot: int | None) -> None:
        calls = self._builder.build(self, self.keeper.sha, checks, times, slot)
        for call in calls:
            self._send(link, call)
        if not calls and self.circuit.state == "half_open":
            self._failed(
                "script_error"
            )  # the probe could not be sent: without an outcome the circuit would wait for it for ever

    def _send(self, link: Link, call: Call, before: bytes = b"") -> None:
        self.in_flight += 1
        if self._tick_timer is None:
            self._arm_tick()
        self._stats.batches += 1
        self._stats.largest_batch = max(self._stats.largest_batch, len(call.checks))
        if before:
            link.send(before + call.packed, (None, call))
        else:
            link.send(call.packed, (call,))

    # Replies

    def _on_answer(self, call: Call, reply: bytes) -> None:
        try:
            figures = call.figures_in(reply)
        except struct.error:  # whatever is wrong with a reply, its decisions still need an answer
            self._answers.refuse(call.give_up(), "script_error")
            self._succeeded()
            return
        if call.is_late:
            self._stats.late_replies += 1
            self._undo(call, figures)
        else:
            self._succeeded()
            if not self.keeper.proven:
                self.keeper.note_decision()
        self._stats.decisions += len(call.unanswered)
        call.deliver(self._answers, figures)

    def _undo(self, call: Call, figures: Sequence[int]) -> None:
        """Give back what given-up decisions took: they were made without the store meanwhile."""
        at = 1
        for check in call.expired:
            count = len(check.keys)
            took = consumed(check, outcomes_of(figures, at, count))
            if took is not None:
                self._give_back(took, figures[0])
            at += FIGURES * count

    def _on_error(self, call: Call, message: str) -> None:
        code = error_code(message)
        if code == "NOSCRIPT" and not call.reloaded:
            self._reload_and_send(call)
        elif code in {"MOVED", "ASK", "TRYAGAIN"} and self._cluster is not None:
            self._succeeded()
            self._cluster.redirect(call, code, message)
        else:
            fault = classify(message)
            self._answers.refuse(call.give_up(), fault.reason)
            # A script's own error says nothing about the server; counted, one bad decision could open the circuit.
            if fault.reason == "script_error":
                self._succeeded()
            else:
                self._failed(fault.reason)
                self._on_trouble()
            if fault.reconnect:
                self.keeper.reconnect()

    def _reload_and_send(self, call: Call) -> None:
        """The server forgot the script (restart, SCRIPT FLUSH). The call did not run, so sending it again is safe."""
        self._stats.script_loads += 1
        load = pack_command(b"SCRIPT", b"LOAD", self._script)
        self._send_again(call, load, reloaded=True, moves=call.moves)

    def _send_again(self, call: Call, before: bytes = b"", *, moves: int, reloaded: bool = False) -> None:
        """Send what is left of a call that did not run, after the command ``before``; its deadline stays."""
        link = self.keeper.link
        if link is None:
            self._answers.refuse(call.give_up(), "connection_lost")
            return
        if call.unanswered:
            parts = self._builder.build(self, self.keeper.sha, call.unanswered, call.unanswered_times, call.slot)
            for again in parts:
                again.reloaded, again.moves = reloaded, moves
                self._send(link, again, before=before)

    # Deadlines and faults

    def _arm_tick(self) -> None:
        self._last_tick = self._loop.time()
        self._tick_timer = self._loop.call_later(self._tick_s, self._tick)

    def _tick(self) -> None:
        """Give up on what is older than the deadline.

        Ages are taken at the tick before: between two ticks the loop has read its sockets, so a loop that was itself
        late does not blame the server for replies that it has yet to read.
        """
        now = self._loop.time()
        horizon = self._last_tick + self._tick_s - self._deadline_s
        self._last_tick = now
        self._count_answers(now)
        expired: list[CounterCheck] = []
        link = self.keeper.link
        oldest = now
        for taker in link.waiting if link is not None else ():
            if isinstance(taker, Call):
                oldest = min(oldest, taker.times[0])
                expired += taker.expire(horizon)
        # While calls are answered in time, queued checks wait for their turn; otherwise their turn would never come.
        stuck = link is None or oldest <= horizon
        pending_horizon = horizon if stuck else now - self._queue_s
        due = 0
        while due < len(self._times) and self._times[due] <= pending_horizon:
            due += 1
        expired += self._pending[:due]
        del self._pending[:due]
        del self._times[:due]
        if expired:
            self._failed("timeout")
            self._answers.refuse(expired, "timeout")
        if now - oldest > self._stall_s:
            self.keeper.reconnect()
        if self._pending or self.in_flight:
            self._tick_timer = self._loop.call_later(self._tick_s, self._tick)
        else:
            self._tick_timer = None
            if self._closing:
                self._idle.set()

    def _succeeded(self) -> None:
        """An answer came in time. It closes a half-open circuit; a closed one counts it at the next tick or fault."""
        if self.circuit.state == "closed":
            self._uncounted += 1
        elif self.circuit.state == "half_open":
            now = self._loop.time()
            self.circuit.succeeded(now)
            self._trouble.ended(now)

    def _count_answers(self, now: float) -> None:
        answers, self._uncounted = self._uncounted, 0
        if answers and self.circuit.state == "closed":
            self.circuit.succeeded(now, answers)

    def _failed(self, reason: Reason) -> None:
        now = self._loop.time()
        self._count_answers(now)
        self.circuit.failed(now)
        if self.circuit.state == "open":
            self._trouble.began(reason, now)
            self._refuse_pending("circuit_open")
            self._prober.wake()

    def _probe(self) -> bool:
        if self._closing or self.keeper.link is None:
            return True  # a new connection wakes the prober again
        if not self._may_probe():
            return False
        key = PROBE_KEY if self._cluster is None else self._cluster.key_on(self, PROBE_KEY)
        self._pending.append(probe_check(key))
        self._times.append(self._loop.time())
        if self._tick_timer is None:
            self._arm_tick()
        self._schedule_flush()
        return True

    def _may_probe(self) -> bool:
        return (
            self.keeper.link is not None
            and self.in_flight < self._max_calls
            and self.circuit.admits_probe(self._loop.time())
        )

    def _refuse_pending(self, reason: Reason) -> None:
        checks, self._pending, self._times = self._pending, [], []
        self._answers.refuse(checks, reason)

    # The connection

    def _on_open(self) -> None:
        self.circuit.reachable(self._loop.time())
        self._schedule_flush()
        if self.circuit.state != "closed":
            self._prober.wake()

    def _on_lost(self, link: Link) -> None:
        """Refuse what is in flight. The store may have counted it or not, so it is never sent again."""
        for taker in link.waiting:
            if isinstance(taker, Call):
                self.in_flight -= 1
                self._answers.refuse(taker.give_up(), "connection_lost")
        link.waiting.clear()
        self._failed("connection_lost")
        self._on_trouble()

    def _on_connect_failure(self) -> None:
        now = self._loop.time()
        self.circuit.trip(now)
        self._trouble.began(self.keeper.last_problem or "connection_lost", now)
        self._refuse_pending("circuit_open")
        self._on_trouble()

    def _on_trouble(self) -> None:
        if self._cluster is not None:
            self._cluster.want_refresh()
