"""Shares in whole units, and changes of them that never let two regions own the same right."""

from hypothesis import example, given
from hypothesis import strategies as st

from data_plane.rights.client import RightsClient
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


def test_a_rights_client_forgets_what_is_idle():
    client = RightsClient(["west"])
    assert client.choose_peer(b"old", 5, {"west": 1}, 1, 1_000) == "west"
    client.note_asked(b"old", 5, "west", 1_000)
    assert client.choose_peer(b"old", 5, {"west": 1}, 1, 1_001) is None
    client.forget_idle(before_us=500)
    assert client.choose_peer(b"old", 5, {"west": 1}, 1, 1_002) is None
    client.forget_idle(before_us=2_000)
    assert client.choose_peer(b"old", 5, {"west": 1}, 1, 1_003) == "west"
