"""Worlds by chance. ``TIDEGATE_SIMULATION_RUNS=10000`` is the thorough form; so is `python -m tools.simulate`."""

import os

import pytest

from data_plane.store.script_host import ScriptHost
from tools.simulate.changing_runs import changing_scenario
from tools.simulate.random_runs import random_scenario, run

RUNS = int(os.environ.get("TIDEGATE_SIMULATION_RUNS", "60"))
PARTS = 4
pytestmark = pytest.mark.timeout(36_000 if RUNS > 1_000 else 300)
HOST = ScriptHost()


@pytest.mark.parametrize("part", range(PARTS))
def test_promises_hold(part: int):
    broken = {}
    for seed in range(part, RUNS, PARTS):
        outcome = run(random_scenario(seed), seed, HOST)
        if outcome.violations:
            broken[seed] = outcome.violations
    assert broken == {}


@pytest.mark.parametrize("seed", [3, 5102])
def test_limit_and_shares_may_change_while_things_die(seed: int):
    assert run(changing_scenario(seed), seed, HOST).violations == ()
