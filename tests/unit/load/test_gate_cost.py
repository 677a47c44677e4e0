"""Passing a gate costs a decision little: measured as CPU, beside the same path without."""

from tools.bench.gate import measure


def test_a_gate_costs_less_than_a_microsecond(record_property):
    figures = measure(repetitions=15, count=1_000)
    plain = figures.pop("no policy")
    for name, ns in figures.items():
        record_property(name, round(ns - plain))
        # a microsecond is some two of the plain path's on the machine that it was promised for
        assert ns - plain < max(1_000, 2 * plain), f"{name}: {ns - plain:.0f} ns more than {plain:.0f}"
