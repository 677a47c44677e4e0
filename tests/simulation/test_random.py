"""Worlds by chance: some in CI, thousands in `make nightly`; `python -m tools.simulate` runs as many as one likes."""

import pytest

from data_plane.store.script_host import ScriptHost
from testing.effort import SEED, share
from tools.simulate.changing_runs import changing_scenario
from tools.simulate.random_runs import random_scenario, run

RUNS = share(ci=200, nightly=5_000)
PARTS = 8
HOST = ScriptHost()


@pytest.mark.parametrize("part", range(PARTS))
def test_promises_hold(part: int):
    broken = {}
    for seed in range(SEED + part, SEED + RUNS, PARTS):
        outcome = run(random_scenario(seed), seed, HOST)
        if outcome.violations:
            broken[seed] = outcome.violations
    assert broken == {}


@pytest.mark.parametrize("seed", [3, 5102])
def test_limit_and_shares_may_change_while_things_die(seed: int):
    assert run(changing_scenario(seed), seed, HOST).violations == ()


def test_shares_of_a_bucket_may_change_with_its_burst():
    """In this world a share of a larger bucket filled by that many units of the smaller one."""
    assert run(random_scenario(199), 199, HOST).violations == ()


def test_a_request_counts_under_the_generation_of_its_client_when_it_was_asked():
    """In this world a client is reset while its last free unit is under way."""
    assert run(random_scenario(60143), 60143, HOST).violations == ()


def test_what_a_store_knew_of_transfers_before_it_was_lost_counts_no_more():
    """In this world a bucket is stored anew after its store was lost, and the ledger beside it is still the old one."""
    assert run(random_scenario(8501148), 8501148, HOST).violations == ()


def test_a_limit_that_is_changed_and_changed_back_is_divided_as_before():
    """In this world thirds of a limit of 60 were 21, 20 and 19 afterwards, when 20 had been given and used."""
    assert run(random_scenario(4002648), 4002648, HOST).violations == ()


def test_a_limit_that_rises_counts_in_the_window_of_each_clock():
    """In this world it rises when one region's clock has not begun the window that the others are in."""
    assert run(random_scenario(3002915), 3002915, HOST).violations == ()


def test_an_answer_about_rights_ends_its_request():
    """In this world the window is too short where an agent waits for answers that it has."""
    assert run(random_scenario(8404288), 8404288, HOST).violations == ()


def test_a_copy_from_before_the_marker_does_not_go_on_with_its_epoch():
    """In this world a store is emptied, and comes back with a copy in which its new epoch has a name and no marker."""
    assert run(random_scenario(5003756), 5003756, HOST).violations == ()
