"""From reports to one load: the median, and who counts as fresh."""

from data_plane.load.controller import Report, lower_median, signal_of
from tidegate.contract.load import AdaptivePolicy

POLICY = AdaptivePolicy(policy="p", signals={"cpu": 1.0, "queue_delay_ms": 100.0})
NOW = 1_000_000_000


def said(reporter, at_us=NOW, weight=1, **signals):
    return Report(reporter, at_us, signals, weight)


def test_one_reporter_is_not_enough():
    assert signal_of([said("a", cpu=5.0)], POLICY, NOW) == (None, None, 1, 0)
    alone = AdaptivePolicy(policy="p", min_reporters=1)
    assert signal_of([said("a", cpu=0.5)], alone, NOW) == (0.5, "cpu", 1, NOW)


def test_a_liar_among_two_or_three_moves_nothing():
    honest = [said("a", cpu=0.5), said("b", cpu=0.6)]
    for lie in (0.0, 1e12):
        assert signal_of([honest[0], said("liar", cpu=lie)], POLICY, NOW).load in {0.0, 0.5}
        assert 0.5 <= signal_of([*honest, said("liar", cpu=lie)], POLICY, NOW).load <= 0.6


def test_the_signal_that_weighs_most_counts():
    both = [said("a", cpu=0.5, queue_delay_ms=90.0), said("b", cpu=0.6, queue_delay_ms=120.0)]
    assert signal_of(both, POLICY, NOW) == (0.9, "queue_delay_ms", 2, NOW)


def test_a_signal_needs_enough_reporters_of_its_own():
    assert signal_of([said("a", cpu=0.9), said("b", queue_delay_ms=1.0)], POLICY, NOW) == (None, None, 1, 0)


def test_what_is_stale_or_from_the_future_says_nothing():
    stale, fresh = NOW - 10_000_001, NOW - 9_999_999
    assert signal_of([said("a", stale, cpu=2.0), said("b", stale, cpu=2.0)], POLICY, NOW).load is None
    assert signal_of([said("a", fresh, cpu=2.0), said("b", fresh, cpu=2.0)], POLICY, NOW).load == 2.0
    future = NOW + 6_000_000
    assert signal_of([said("a", future, cpu=2.0), said("b", future, cpu=2.0)], POLICY, NOW).load is None


def test_signals_that_the_policy_does_not_name_are_ignored():
    assert signal_of([said("a", latency_ms=1e9), said("b", latency_ms=1e9)], POLICY, NOW).load is None


def test_what_several_nodes_heard_of_one_gateway_is_one_voice():
    nodes = [said("gw", cpu=0.9, weight=3), said("gw", cpu=0.1, weight=1)]
    assert signal_of(nodes, POLICY, NOW) == (None, None, 1, 0)
    assert signal_of([*nodes, said("other", cpu=0.9)], POLICY, NOW).load == (0.9 * 3 + 0.1) / 4


def test_of_two_middle_values_the_lower_counts():
    assert lower_median([3.0, 1.0]) == 1.0
    assert lower_median([4.0, 1.0, 3.0, 2.0]) == 2.0
    assert lower_median([3.0, 1.0, 2.0]) == 2.0
