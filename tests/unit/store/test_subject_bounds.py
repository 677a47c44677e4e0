from data_plane.store.subject_bounds import OVERFLOW, PERIOD_S, SubjectBounds


def test_values_beyond_the_budget_share_one_subject_until_the_hour_is_over():
    bounds = SubjectBounds(max_values=2)
    values = [bounds.within_budget(["tenant"], {"tenant": value}, 0.0)["tenant"] for value in ("a", "b", "c", "a", "d")]
    assert values == ["a", "b", OVERFLOW, "a", OVERFLOW]
    assert bounds.within_budget(["tenant"], {"tenant": "c"}, PERIOD_S)["tenant"] == "c"


def test_attributes_that_are_not_counted_have_no_budget():
    bounds = SubjectBounds(max_values=1)
    for value in "abc":
        assert bounds.within_budget(["tenant"], {"tenant": "a", "trace": value}, 0.0) == {"tenant": "a", "trace": value}


def test_a_nearly_full_store_coarsens_and_an_unbounded_one_never():
    bounds = SubjectBounds()
    bounds.store_memory(86, 100)
    assert bounds.coarse
    bounds.store_memory(84, 100)
    assert not bounds.coarse
    bounds.store_memory(10**12, 0)
    assert not bounds.coarse
