"""The benchmark's arithmetic: a wrong median or ratio would be believed."""

import pytest

from tests.unit.benchmarks.builders import baseline_cell, make_results, make_run
from tools.bench.results import middle, paired_ratio
from tools.bench.targets import Target, lane_cell, targets


def test_middle_of_nothing_is_nothing():
    assert middle([]) is None
    assert middle([3.0, 1.0, 2.0]) == 2.0


def test_ratios_are_taken_within_a_repetition():
    lane, base = lane_cell("one"), baseline_cell("fastapi-redis")
    # The machine was twice as slow in the second repetition: the ratio is the same in both.
    measured = [make_run(lane, 1, 20), make_run(lane, 2, 40)]
    reference = [make_run(base, 1, 200), make_run(base, 2, 400)]
    assert paired_ratio(measured, reference, lambda run: run.server_cpu_us) == pytest.approx(0.1)


def test_a_repetition_without_its_reference_is_left_out():
    lane, base = lane_cell("one"), baseline_cell("fastapi-redis")
    measured = [make_run(lane, 1, 20), make_run(lane, 2, 90)]
    assert paired_ratio(measured, [make_run(base, 1, 200)], lambda run: run.server_cpu_us) == pytest.approx(0.1)
    assert paired_ratio(measured, [], lambda run: run.server_cpu_us) is None


@pytest.mark.parametrize(
    ("wanted", "measured", "at_least", "reached", "distance"),
    [
        (4.0, 3.0, False, True, -0.25),
        (4.0, 5.0, False, False, 0.25),
        (150_000.0, 100_000.0, True, False, 0.5),
        (150_000.0, 300_000.0, True, True, -0.5),
    ],
)
def test_a_target_tells_whether_and_by_how_much_it_was_missed(wanted, measured, at_least, reached, distance):
    target = Target("what", "µs", wanted, measured, at_least)
    assert target.reached is reached
    assert target.distance == pytest.approx(distance)


def test_what_was_not_measured_is_neither_reached_nor_missed():
    found = list(targets(make_results([])))
    assert found
    assert {target.reached for target in found} == {None}
    assert {target.distance for target in found} == {None}


def test_the_lane_is_compared_with_baseline_and_floor_of_the_same_run():
    http = [
        make_run(lane_cell("one"), 1, 18.0),
        make_run(baseline_cell("fastapi-redis"), 1, 270.0),
        make_run(baseline_cell("nginx"), 1, 9.0),
    ]
    first, second = list(targets(make_results(http)))[:2]
    assert first.measured == pytest.approx(1 / 15)
    assert first.reached is True
    assert second.measured == pytest.approx(2.0)
    assert second.reached is True
