"""Paths with parts that may be left out, and what is sent for what was typed."""

from datetime import UTC, datetime

import pytest

from tidegate.admin.shapes import ArgumentError, Field, changed, filled, parameters, value_of

SWITCH = "/v1/enforcement[[/{plan}]/{limit}]"
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("plan", "limit", "expected"),
    [
        (None, None, "/v1/enforcement"),
        (None, "hourly", "/v1/enforcement/hourly"),
        ("free", "hourly", "/v1/enforcement/free/hourly"),
        ("a b?c", "[{x}]", "/v1/enforcement/a%20b%3Fc/%5B%7Bx%7D%5D"),
    ],
)
def test_a_part_goes_with_its_name(plan: str | None, limit: str | None, expected: str) -> None:
    assert parameters(SWITCH) == {"plan": True, "limit": True}
    assert filled(SWITCH, {"plan": plan, "limit": limit}) == expected


def test_no_name_leads_to_another_resource() -> None:
    """A plan without its limit would be taken for a limit, and an empty limit for all of them."""
    with pytest.raises(ArgumentError, match="--plan needs another name"):
        filled(SWITCH, {"plan": "free", "limit": None})
    for name in ("", ".", ".."):
        with pytest.raises(ArgumentError, match="limit: must not be"):
            filled(SWITCH, {"plan": "free", "limit": name})
    with pytest.raises(ArgumentError, match="client: must not hold a /"):
        filled("/v1/clients/{client}", {"client": "a/b"})
    with pytest.raises(ArgumentError, match="client: is needed"):
        filled("/v1/clients/{client}", {})


def test_durations_count_from_now_and_instants_stay() -> None:
    ahead, ago = Field("expires_at", "", "ahead"), Field("since", "", "ago")
    assert value_of(ahead, "30m", NOW) == "2026-11-30T12:30:00+00:00"
    assert value_of(ago, "2d", NOW) == "2026-11-28T12:00:00+00:00"
    assert value_of(ago, "2026-01-01T00:00:00Z", NOW) == "2026-01-01T00:00:00Z"
    assert value_of(Field("match.methods", "", "list"), "GET, POST,", NOW) == ["GET", "POST"]
    assert value_of(Field("attributes", "", "pairs"), ["a=1=2", "b="], NOW) == {"a": "1=2", "b": None}


@pytest.mark.parametrize(
    ("field", "given", "words"),
    [
        (Field("attributes", "", "pairs", option="attribute"), ["tier"], "--attribute: 'tier' is not NAME=VALUE"),
        (Field("attributes", "", "pairs", option="attribute"), ["a=1", " a=2"], "--attribute: a is given twice"),
        (Field("window_s", "", "float"), float("nan"), "--window-s: must be a number"),
        (Field("since", "", "ago"), "yesterday", "--since: must be an instant such as .*, or a duration such as 12h"),
        (Field("expires_at", "", "ahead"), "2 h", "--expires-at: must be an instant such as .*, or a duration"),
    ],
)
def test_what_cannot_be_sent_is_named(field: Field, given: object, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        value_of(field, given, NOW)


def test_the_longest_durations_are_instants() -> None:
    assert value_of(Field("expires_at", "", "ahead"), "99999w", NOW).startswith("3943-")
    assert value_of(Field("since", "", "ago"), "99999w", NOW).startswith("0110-")


def test_a_change_keeps_what_it_does_not_name() -> None:
    body = {"attributes": {"a": "1", "b": "2"}, "match": {"methods": ["GET"], "endpoints": ["x"]}, "window": "day"}
    pairs = changed(body, Field("attributes", "", "pairs"), {"b": None, "c": "3"})
    assert pairs["attributes"] == {"a": "1", "c": "3"}
    inner = changed(body, Field("match.methods", "", "list"), [])
    assert inner["match"] == {"methods": [], "endpoints": ["x"]}
    other = changed(body, Field("window_s", "", "float", instead_of=("window",)), 60.0)
    assert (other["window"], other["window_s"]) == (None, 60.0)
    assert body["window"] == "day"
