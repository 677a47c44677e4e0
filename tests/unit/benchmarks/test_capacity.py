"""The arithmetic of capacity, and that it finds its figures on the page of benchmarks as it is."""

import pytest

from tools.bench.capacity import DOCS, Figures, MissingFigureError, Need, example, plan, read

FIGURES = Figures(node_us={1: 20.0, 3: 30.0}, node_batch_us={1: 5.0, 3: 10.0}, store_limit_us=4.0, bytes_a_limit=100.0)


def test_nodes_and_shards_follow_from_cpu_time_and_the_load_that_is_wanted():
    made = plan(Need("one", 100_000, 3, 1_000_000), FIGURES)
    assert made.nodes == 5 + 1  # 3 cores of work at 60%
    assert made.shards == 2  # 1.2 cores of work at 60%
    assert made.store_cores == pytest.approx(1.2)
    assert made.store_bytes == pytest.approx((100_000_000 + 64 * 2**20) / 0.7, rel=1e-6)


def test_limits_beyond_those_measured_cost_as_much_as_the_last_ones():
    assert plan(Need("one", 600_000, 5, 1), FIGURES).nodes == 40 + 1  # 40 µs


def test_batches_take_their_own_figures():
    assert plan(Need("one", 600_000, 1, 1, batches=True), FIGURES).nodes == 5 + 1


def test_a_small_region_still_has_two_nodes():
    made = plan(Need("one", 1, 1, 1), FIGURES)
    assert (made.nodes, made.shards) == (2, 1)


def test_the_page_of_benchmarks_has_all_that_is_needed():
    figures = read((DOCS / "benchmarks.md").read_text())
    assert 0 < figures.node_batch_us[1] <= figures.node_us[1]
    assert "| a platform |" in example(figures)


def test_a_missing_table_is_named():
    with pytest.raises(MissingFigureError, match="CPU for a decision"):
        read("# Benchmarks\n")
