"""Results of a benchmark that never ran."""

from tools.bench.machine import Machine
from tools.bench.results import Cell, HttpRun, Results
from tools.bench.seen import Seen

SEEN = Seen(requests=10, all_requests=10, seconds=1.0, p50_us=100, p99_us=900, p999_us=1_900)


def make_run(cell: Cell, repetition: int, cpu_us: float) -> HttpRun:
    return HttpRun(
        cell=cell,
        repetition=repetition,
        seen=SEEN,
        server_cpu_us=cpu_us,
        store_cpu_us=1.0,
        decisions_per_s=10.0,
        decisions_per_call=1.0,
        others_share=0.0,
        degraded_share=0.0,
    )


def make_results(http: list[HttpRun]) -> Results:
    machine = Machine(
        cpu="", cores=2, memory_gib=1, kernel="", system="", python="", versions={}, load_average=0, niceness=0
    )
    return Results(machine=machine, started="", quick=False, parts=["http"], repetitions=3, http=http)


def baseline_cell(name: str) -> Cell:
    return Cell(variant=name, plan="one", batch=1, connections=64, load="closed")
