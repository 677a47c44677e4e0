"""Shares in whole units, and changes of them that never let two regions own the same right."""

from hypothesis import example, given
from hypothesis import strategies as st

from data_plane.rights.asking import Asker
from data_plane.store.rights_messages import NOTHING, Ask
from tidegate.contract.shares import split

WEIGHTS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 50), min_size=1).filter(lambda w: sum(w.values()))


@given(st.integers(0, 10**9), WEIGHTS)
def test_split_loses_nothing_and_gives_nobody_less_than_exact_rounded_down(total: int, weights: dict[str, int]):
    shares = split(total, weights)
    whole = sum(weights.values())
    assert sum(shares.values()) == total
    assert all(shares[name] >= total * weight // whole for name, weight in weights.items())


@example(5, 1, {"a": 4, "b": 4, "c": 1})
@given(st.integers(0, 10**5), st.integers(1, 9), WEIGHTS)
def test_a_larger_whole_gives_no_region_less(total: int, more: int, weights: dict[str, int]):
    """The largest remainder did: 5 by 4 : 4 : 1 were 2, 2 and 1, but 6 were 3, 3 and 0."""
    before, after = split(total, weights), split(total + more, weights)
    assert all(after[name] >= before[name] for name in weights)


def test_an_asker_forgets_what_is_idle():
    asker = Asker(["west"])
    ask = Ask("old", 0, 1, 5, "east", 1, 0, NOTHING, 0, 0, 1_000)
    assert asker.whom(("old", 0), 5, {"west": 1}, 1, 1_000) == "west"
    asker.asked(("old", 0), ask, "west", 1_000)
    assert asker.whom(("old", 0), 5, {"west": 1}, 1, 1_001) is None
    asker.forget_idle(before_us=500)
    assert asker.whom(("old", 0), 5, {"west": 1}, 1, 1_002) is None
    asker.forget_idle(before_us=2_000)
    assert asker.whom(("old", 0), 5, {"west": 1}, 1, 1_003) == "west"
