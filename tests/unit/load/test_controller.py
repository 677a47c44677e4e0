"""The factor over ticks, against the rules as docs/adaptive.md states them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.load.controller import ControlState, Signal, override, tick
from tidegate.contract.load import AdaptivePolicy, policy_violations

POLICY = AdaptivePolicy(policy="p")
STEPS = AdaptivePolicy(policy="s", type="steps", smoothing=1.0)


def run(loads, policy=POLICY, state=None, start=0):
    """States after each of ``loads``; ``None`` is a tick in which too few speak."""
    state = state or ControlState()
    states = []
    for number, load in enumerate(loads, start):
        now_us = 1_900_000_000_000_000 + number * 1_000_000
        heard = Signal(None, None, 0) if load is None else Signal(load, "cpu", 3, now_us)
        state = tick(state, policy, heard, now_us)
        states.append(state)
    return states


def factors(*arguments, **members):
    return [state.factor for state in run(*arguments, **members)]


def test_one_tick_above_the_target_cuts_nothing_two_cut():
    first, second = run([1.0, 1.0])
    assert (first.factor, first.reason, first.above) == (1.0, "held", 1)
    assert (second.factor, second.reason, second.signal) == (0.8, "cut", "cpu")
    assert second.since_us == 1_900_000_001_000_000


def test_a_cut_is_never_deeper_than_half_and_a_full_backend_is_cut_to_its_target():
    assert factors([3.0, 3.0])[-1] == 0.5
    assert factors([1.0, 1.0])[-1] == 0.8


def test_each_cut_needs_two_ticks_of_its_own():
    assert factors([9.0] * 6) == [1.0, 0.5, 0.5, 0.25, 0.25, 0.2]


def test_what_was_said_before_a_cut_could_show_calls_for_no_second_one():
    state = run([9.0, 9.0])[-1]
    assert state.factor == 0.5
    for number in range(2, 20):  # every report is a second late
        at_us = 1_900_000_000_000_000 + min(number - 1, 1) * 1_000_000
        state = tick(state, POLICY, Signal(9.0, "cpu", 3, at_us), 1_900_000_000_000_000 + number * 1_000_000)
        assert state.factor == 0.5


def test_the_same_report_counts_once_however_long_it_is_fresh():
    state = ControlState()
    for number in range(1, 9):
        state = tick(state, POLICY, Signal(9.0, "cpu", 3, 1_900_000_000_000_000), 1_900_000_000_000_000 + number)
    assert (state.factor, state.above) == (1.0, 1)


def test_the_floor_holds():
    assert factors([50.0] * 20)[-1] == POLICY.floor


def test_between_the_bounds_it_holds():
    cut = run([1.0, 1.0])[-1]
    held = run([0.78] * 50, state=cut, start=2)
    assert {state.factor for state in held} == {0.8}
    assert held[-1].reason == "held"


def test_well_below_it_comes_back_step_by_step_after_five_calm_ticks():
    raised = factors([0.1] * 30, state=ControlState(factor=0.2, smoothed=0.1))
    assert raised == [0.2] * 4 + [round(0.25 + 0.05 * step, 6) for step in range(16)] + [1.0] * 10


def test_it_is_not_raised_into_the_next_cut():
    """A raise from 0.5 to 0.55 makes a load of 0.65 to 0.715: above the target less the hysteresis."""
    assert set(factors([0.65] * 100, state=ControlState(factor=0.5, smoothed=0.65))) == {0.5}
    assert factors([0.63] * 10, state=ControlState(factor=0.5, smoothed=0.63))[-1] > 0.5


def test_from_near_nothing_it_comes_back_although_the_backend_is_not_at_0_at_rest():
    low = AdaptivePolicy(policy="p", floor=0.01)
    found = factors([0.15] * 300, policy=low, state=ControlState(factor=0.01))
    assert sorted(set(found))[:3] == [0.01, 0.02, 0.04]
    assert found[-1] == 1.0


def test_silence_is_no_overload():
    assert {state.reason for state in run([None] * 100)} == {"no_reports"}
    assert factors([None] * 100)[-1] == 1.0
    cut = run([9.0] * 6)[-1]
    silent = run([None] * 60, state=cut, start=6)
    assert [state.factor for state in silent[:15]] == [0.2] * 15
    assert {state.reason for state in silent[:15]} == {"reporters_missing"}
    assert silent[15].factor == 0.25
    assert silent[15].reason == "recovering_unseen"
    assert silent[-1].factor == 1.0


def test_a_manual_factor_rules_and_is_left_step_by_step():
    state = override(ControlState(), 0.3, 5_000_000)
    assert (state.factor, state.reason, state.since_us) == (0.3, "manual", 5_000_000)
    after = factors([0.1] * 10, state=state, start=6)
    assert after[:6] == [0.3, 0.3, 0.3, 0.3, 0.35, 0.4]


@pytest.mark.parametrize("load", [0.05, 0.3])
@pytest.mark.parametrize(("policy", "lowest"), [(POLICY, 0.2), (STEPS, 0.5)], ids=["controller", "steps"])
def test_a_backend_closed_by_hand_opens_again_although_an_idle_one_is_not_at_0(policy, lowest, load):
    shut = override(ControlState(), 0.0, 1_900_000_000_000_000)
    opened = factors([load] * 60, policy, state=shut, start=1)
    assert opened[-1] == 1.0
    assert opened[:3] == [0.05, 0.1, 0.15]
    assert max(factors([9.0] * 60, policy, state=shut, start=1)) == lowest, "what load leads to, and no more"


@pytest.mark.parametrize("later", ["since_us", "seen_us"])
def test_what_a_clock_that_ran_ahead_has_dated_does_not_hold_the_factor(later):
    """The deciding node's, an hour: it was set, or another node took over."""
    state = ControlState(factor=0.2, **{later: 1_900_000_000_000_000 + 3_600_000_000})
    assert factors([0.1] * 60, state=state)[-1] == 1.0


def test_steps_follow_the_table_with_hysteresis():
    assert factors([0.7, 0.7], STEPS) == [1.0, 0.75]
    assert factors([0.9, 0.9], STEPS) == [1.0, 0.5]
    half = run([0.9, 0.9], STEPS)[-1]
    assert half.reason == "stepped"
    assert set(factors([0.55] * 30, STEPS, state=half, start=2)) == {0.5}, "0.55 would be 0.83 at three quarters"
    back = factors([0.3] * 12, STEPS, state=half, start=2)
    assert back == [0.5] * 4 + [0.75] * 5 + [1.0] * 3


@given(loads=st.lists(st.one_of(st.none(), st.floats(0, 100)), max_size=200), kind=st.sampled_from([POLICY, STEPS]))
def test_the_factor_stays_within_its_bounds_and_moves_no_faster_than_allowed(loads, kind):
    before = 1.0
    for state in run(loads, kind):
        assert kind.floor <= state.factor <= 1.0
        if kind.type == "controller":
            assert state.factor >= round(before * kind.deepest_cut, 6) or state.factor == kind.floor
            assert state.factor <= before + kind.raise_by + 1e-9
        before = state.factor


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"target": float("nan")}, "target"), ({"floor": 0.0}, "floor"), ({"signals": {"ram": 1.0}}, "signals"),
        ({"signals": {"cpu": float("inf")}}, "signals.cpu"), ({"hysteresis": 0.5, "target": 0.5}, "hysteresis"),
        ({"reserve": 0.1}, "reserve"), ({"steps": ()}, "steps"), ({"min_reporters": 0}, "min_reporters"),
    ],
)  # fmt: skip
def test_an_unsound_policy_is_refused_by_its_field(members, field):
    assert field in {violation.field for violation in policy_violations(AdaptivePolicy(policy="p", **members))}


def test_the_defaults_are_sound():
    assert not list(policy_violations(AdaptivePolicy(policy="p")))
