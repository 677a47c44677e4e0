"""Measures servers over HTTP: closed loop at several connection counts, and open loop at half of what was found."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

import redis

from tools.bench import closed_loop, open_loop
from tools.bench.errors import BenchError
from tools.bench.machine import core_times, process_cpu_s, woken_at_once
from tools.bench.node_counts import NodeCounts, node_counts, wait_until_idle
from tools.bench.place import Place
from tools.bench.results import Cell, HttpRun
from tools.bench.seen import Seen
from tools.bench.store_counts import empty, script_calls, store_client
from tools.bench.variant import Server, Variant, running
from tools.bench.verify import verify_node

WARM_UP_S = 1
SPENDING_S = 3
WARM_UP_CONNECTIONS = 16
MOST_CONNECTIONS = 64
OPEN_LOOP_SHARE = 0.5

Report = Callable[[HttpRun], None]


class _Readings(NamedTuple):
    """What the clocks and counters show at one instant."""

    counts: NodeCounts
    script_calls: int
    store_cpu_s: float
    server_cpu_s: float
    core_busy_s: float
    at_s: float


class VariantRun:
    """One variant, started afresh on an empty store, and the cells that are measured on it."""

    def __init__(self, place: Place, server: Server, client: redis.Redis, repetition: int) -> None:
        self._place = place
        self._server = server
        self._client = client
        self._repetition = repetition
        self._capacity_per_s: dict[str, float] = {}

    def warm_up(self) -> None:
        """Let the interpreter and the connections settle; where denials are wanted, use up every client's limit."""
        cell = Cell(
            variant="", plan=self._server.variant.plans[0], batch=1, connections=WARM_UP_CONNECTIONS, load="closed"
        )
        denies = self._server.variant.denies
        self._drive(cell, SPENDING_S if denies else WARM_UP_S, others=float(denies))

    def measure(self, cell: Cell, seconds: int) -> HttpRun:
        """Run one cell. An open-loop cell comes after the closed-loop one that finds its plan's capacity."""
        before = self._read()
        seen = self._drive(cell, seconds)
        if self._server.variant.is_tidegate:
            wait_until_idle(self._server.url)
        after = self._read()
        decisions = seen.all_requests * cell.batch
        if self._server.variant.is_tidegate:
            # The node also decided what was under way when the load ended: that used CPU, but no answer was seen.
            answered, decisions = decisions, after.counts.decisions - before.counts.decisions
            if not answered <= decisions <= answered + cell.connections * cell.batch:
                raise BenchError(f"{cell}: {answered} decisions came back, but the node counted {decisions}")
        if cell.load == "closed" and cell.batch == 1 and cell.connections == MOST_CONNECTIONS:
            self._capacity_per_s[cell.plan] = seen.requests / seen.seconds
        calls = after.script_calls - before.script_calls
        server_cpu_s = after.server_cpu_s - before.server_cpu_s
        others_s = after.core_busy_s - before.core_busy_s - server_cpu_s
        return HttpRun(
            cell=cell,
            repetition=self._repetition,
            seen=seen,
            server_cpu_us=server_cpu_s / decisions * 1e6,
            store_cpu_us=(after.store_cpu_s - before.store_cpu_s) / decisions * 1e6,
            decisions_per_s=seen.requests * cell.batch / seen.seconds,
            decisions_per_call=decisions / calls if calls else None,
            others_share=max(0.0, others_s / (after.at_s - before.at_s)),
            degraded_share=(after.counts.degraded - before.counts.degraded) / decisions,
        )

    def _drive(self, cell: Cell, seconds: int, *, others: float = 0.0) -> Seen:
        variant, core = self._server.variant, self._place.cores.load
        path = variant.path if cell.batch == 1 else variant.batch_path
        if path is None:
            raise BenchError(f"{variant.name} has no batches")
        lines = self._place.subrequests if variant.subrequests else self._place.bodies[cell.plan, cell.batch]
        if cell.load == "closed":
            load = closed_loop.Load(
                self._server.url, path, lines, cell.connections, seconds, variant.subrequests, variant.denies, others
            )
            return closed_loop.drive(load, core)
        rate = OPEN_LOOP_SHARE * self._capacity_per_s[cell.plan]
        plan = open_loop.Plan(self._server.port, path, str(lines), rate, seconds, cell.connections, cell.load)
        with woken_at_once(self._server.pid, self._place.store.child.pid):
            return open_loop.drive(plan, core)

    def _read(self) -> _Readings:
        counts = node_counts(self._server.url) if self._server.variant.is_tidegate else NodeCounts(0, 0)
        core = core_times(self._place.cores.server)
        return _Readings(
            counts=counts,
            script_calls=script_calls(self._client),
            store_cpu_s=process_cpu_s(self._place.store.child.pid),
            server_cpu_s=process_cpu_s(self._server.pid),
            core_busy_s=core.busy_s,
            at_s=core.at_s,
        )


def measure_variant(
    variant: Variant, cells: list[Cell], place: Place, *, repetition: int, seconds: int, report: Report
) -> None:
    """Start a variant, measure its cells one after the other, stop it."""
    with ExitStack() as held:
        client = held.enter_context(store_client(place.store.url))
        empty(client)
        server = held.enter_context(running(variant, place))
        if variant.is_usual_node:
            verify_node(server)
        run = VariantRun(place, server, client, repetition)
        run.warm_up()
        for cell in cells:
            report(run.measure(cell, seconds))
