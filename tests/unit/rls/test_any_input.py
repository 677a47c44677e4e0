"""Whatever comes in, a connection stays within its bounds, answers, and leaves nothing behind (see ``fuzz.py``)."""

from tests.unit.rls.fuzz import run


def test_whatever_comes_in_it_ends_well():
    total = run(2_000, seed=20_261_130)
    assert total["inputs"] == 2_000
    assert total["answers"] > 400
    assert total["resets"] > 500
