"""The document holds what was measured, and says what was not."""

from tests.unit.benchmarks.builders import baseline_cell, make_results, make_run
from tools.bench.plan import LANE, cells_of
from tools.bench.render import document
from tools.bench.results import MemoryRun, ScriptRun
from tools.bench.targets import lane_cell


def test_every_figure_of_a_run_is_in_its_row():
    results = make_results([make_run(lane_cell("one"), 1, 18.25), make_run(baseline_cell("nginx"), 1, 9.125)])
    text = document(results)
    assert "| lane | 1 | 18.2 | 1.0 | 54,795 | 10 | - | 2.00 |" in text
    assert "| nginx | 0 | 9.1 |" in text


def test_a_missed_target_stands_out():
    results = make_results([])
    results.memory.append(
        MemoryRun(
            server="Valkey",
            algorithm="sliding_log",
            keys=10,
            name_length=16,
            key_bytes=24,
            bytes_a_limit=121.0,
            allocator="libc",
        )
    )
    results.script.append(ScriptRun(server="Valkey", algorithm="token_bucket", limits=32, repetition=1, cpu_us=3.0))
    text = document(results)
    assert (
        "| Valkey, `sliding_log`: memory for a limit and subject | <= 110.0 bytes | 121.0 bytes | **missed** | +10% |"
        in text
    )
    assert "| Valkey, `token_bucket`, 32 limits a call: CPU for a limit | <= 4.0 µs | 3.0 µs | reached | -25% |" in text


def test_what_could_not_be_measured_is_named():
    results = make_results([])
    results.skipped.append("nginx, repetition 1: nginx is missing")
    assert "- nginx, repetition 1: nginx is missing" in document(results)


def test_the_lane_is_measured_at_every_connection_count_single_and_batched():
    cells = cells_of(LANE, quick=False)
    assert len(cells) == len(set(cells))
    for plan in ("one", "three"):
        for batch in (1, 100):
            closed = [
                cell.connections for cell in cells if (cell.plan, cell.batch, cell.load) == (plan, batch, "closed")
            ]
            assert closed == [1, 4, 16, 64]
        opened = [cell.load for cell in cells if cell.plan == plan and cell.load != "closed"]
        assert opened == ["even", "poisson"]
