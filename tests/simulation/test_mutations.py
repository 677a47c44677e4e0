"""Each rule is needed: with it switched off something breaks."""

import pytest

from tests.simulation.mutations import MUTATIONS, Switch, mutated
from tests.simulation.test_directed import scenario
from tidegate.bundled import directory
from tools.simulate.random_runs import run

WORLDS = 3
SCRIPTS = "\n".join(path.read_text("utf-8") for path in directory("lua").glob("*.lua"))


@pytest.mark.parametrize("rule", MUTATIONS)
def test_switching_a_rule_off_breaks_a_promise(rule: str):
    """Chance decides whether the mistake shows: in one of a few worlds that keep their promises with the rule on."""
    mutation = MUTATIONS[rule]
    found = scenario(mutation.breaks)
    with mutated(mutation) as host:
        assert any(run(found, seed, host).violations for seed in range(found.seed, found.seed + WORLDS))


@pytest.mark.parametrize("rule", [name for name, mutation in MUTATIONS.items() if not isinstance(mutation, Switch)])
def test_the_lines_that_are_edited_are_there(rule: str):
    for old, _ in MUTATIONS[rule].lines:
        assert SCRIPTS.count(old) == 1, old
