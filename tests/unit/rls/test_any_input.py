"""Whatever comes in, a connection stays within its bounds, answers, and leaves nothing behind (see ``fuzz.py``)."""

from testing.effort import SEED, share
from tests.unit.rls.fuzz import run

INPUTS = share(ci=2_000, nightly=1_000_000)


def test_whatever_comes_in_it_ends_well():
    total = run(INPUTS, seed=SEED or 20_261_130)
    assert total["inputs"] == INPUTS
    assert total["answers"] > INPUTS / 5
    assert total["resets"] > INPUTS / 4
