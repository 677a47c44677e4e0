import msgspec
from hypothesis import given
from hypothesis import strategies as st

from data_plane.config.index import ConfigSet
from tidegate.contract.config import Change


def change(kind, id, body):
    return Change(kind, id, None if body is None else msgspec.Raw(msgspec.json.encode(body)))


changes = st.lists(
    st.builds(
        change, st.sampled_from(["client", "plan", "new-kind"]), st.sampled_from("abcdef"), st.none() | st.integers()
    ),
    max_size=30,
)


@given(changes, changes)
def test_a_delta_gives_the_same_set_as_all_at_once(first, second):
    step_by_step = ConfigSet.empty().with_changes(first).with_changes(second)
    at_once = ConfigSet.empty().with_changes([*first, *second])
    assert step_by_step.digest == at_once.digest
    assert sorted(step_by_step.documents()) == sorted(at_once.documents())


@given(changes, changes)
def test_a_change_leaves_the_old_set_as_it_was(first, second):
    old = ConfigSet.empty().with_changes(first)
    before = sorted(old.documents()), old.digest
    old.with_changes(second)
    assert (sorted(old.documents()), old.digest) == before


def test_other_content_has_another_digest():
    one = ConfigSet.empty().with_changes([change("client", "a", {"plan": "x"})])
    other = ConfigSet.empty().with_changes([change("client", "a", {"plan": "y"})])
    moved = ConfigSet.empty().with_changes([change("plan", "a", {"plan": "x"})])
    assert len({one.digest, other.digest, moved.digest, ConfigSet.empty().digest}) == 4
