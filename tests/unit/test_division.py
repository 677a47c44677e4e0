"""How a parallel run divides its tests: what is named exists, and files stay whole otherwise."""

from pathlib import Path

import pytest

from tests.division import APART, LONGEST_FIRST, TOGETHER, rank_of, scope_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("place", [*TOGETHER, *APART, *LONGEST_FIRST])
def test_what_is_named_is_there(place: str):
    assert (ROOT / place).exists()


def test_files_are_handed_out_whole_but_for_long_ones_and_what_shares_a_stack():
    assert scope_of("tests/unit/test_why.py::test_a[1]") == scope_of("tests/unit/test_why.py::test_b")
    assert scope_of("tests/simulation/test_random.py::test_a[1]") != scope_of("tests/simulation/test_random.py::test_b")
    assert scope_of("tests/release/test_sources.py::test_a") == scope_of("tests/release/test_upgrade.py::test_b")
    assert scope_of("tests/one_stack/test_usage.py::a") == scope_of("tests/one_stack/test_strict.py::b")


def test_what_takes_longest_begins_first():
    names = ["tests/unit/test_why.py::a", "tests/system/test_up.py::a", "tests/one_stack/test_usage.py::a"]
    assert sorted(names, key=rank_of) == names[::-1]
