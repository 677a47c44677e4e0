"""The file's words: rates, normal forms, and that what is exported means what was meant."""

import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from control_plane.config_file import entries
from control_plane.config_file.amounts import Rate, format_amount, format_rate, parse_rate
from control_plane.config_file.differences import differences
from control_plane.config_file.schemas import LimitEntry
from control_plane.config_file.sections import SECTION_NAMES, ConfigFile, SectionName, json_schema
from control_plane.limits.service import rule_fields


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1000/h", Rate(1000, 3600)),
        ("10/s", Rate(10, 1)),
        ("60/min", Rate(60, 60)),
        ("100/day", Rate(100, 86_400)),
        ("2/week", Rate(2, 604_800)),
        ("5M/month", Rate(5_000_000, None)),
        ("2.5k / 15min", Rate(2_500, 900)),
        ("1G/30d", Rate(10**9, 30 * 86_400)),
    ],
)
def test_rates(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate
    written = format_rate(*rate)
    assert written is not None
    assert parse_rate(written) == rate


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "5/",
        "/h",
        "5/y",
        "5/0s",
        "5/2month",
        "-5/h",
        "1.5/h",
        "5 k/h",
        "5/h/h",
        "\N{ARABIC-INDIC DIGIT FIVE}/h",
    ],
)
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match=r"must|window|not one of"):
        parse_rate(text)


@given(st.integers(0, 10**12))
def test_amounts_keep_every_unit(units: int) -> None:
    assert parse_rate(f"{format_amount(units)}/h").limit == units


NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,6}", fullmatch=True)
RATES = st.builds(
    lambda limit, unit: f"{limit}/{unit}", st.integers(1, 10**6), st.sampled_from(["s", "min", "h", "day"])
)
LIMITS = st.fixed_dictionaries(
    {"limit": RATES},
    optional={
        "by": st.sampled_from(["client", "ip", "client+endpoint", "global"]),
        "mode": st.sampled_from(["shared", "regional", "strict"]),
        "algorithm": st.sampled_from(["fixed_window", "sliding_window"]),
        "shadow": st.booleans(),
        "priority": st.integers(-5, 5),
        "visible": st.booleans(),
        "on_store_failure": st.sampled_from(["local", "open", "closed"]),
        "shares": st.just({"a": 0.25, "b": 0.75}) | st.just("auto"),
        "match": st.fixed_dictionaries({}, optional={"methods": st.just(["POST", "GET"])}),
    },
) | st.fixed_dictionaries({"limit": st.integers(0, 100), "window": st.sampled_from(["day", "week", "month"])})
PLANS = st.fixed_dictionaries(
    {}, optional={"priority": st.integers(-9, 9), "limits": st.dictionaries(NAMES, LIMITS, max_size=4)}
)


@given(st.dictionaries(NAMES, PLANS, max_size=4))
def test_normal_forms_mean_the_same_and_are_their_own(plans: dict[str, object]) -> None:
    file = ConfigFile.model_validate_json(json.dumps({"version": 1, "plans": plans}))
    normal = {name: entries.normal_plan(plan) for name, plan in (file.plans or {}).items()}
    again = ConfigFile.model_validate_json(json.dumps({"version": 1, "plans": normal}))
    assert {name: entries.normal_plan(plan) for name, plan in (again.plans or {}).items()} == normal
    for name, plan in (file.plans or {}).items():
        one, two = entries.plan_body(plan).limits, entries.plan_body((again.plans or {})[name]).limits
        assert [rule_fields(limit) for limit in one] == [rule_fields(limit) for limit in two]
        assert [sorted(limit.match.methods) for limit in one] == [limit.match.methods for limit in two]
    assert differences("plans", normal, normal, deletes=True) == []


def test_the_order_of_a_plans_limits_is_a_difference() -> None:
    one, two = {"limits": {"a": 1, "b": 2}}, {"limits": {"b": 2, "a": 1}}
    assert [change.action for change in differences("plans", {"p": one}, {"p": two}, deletes=True)] == ["update"]


def test_a_rate_says_the_window_itself() -> None:
    with pytest.raises(ValidationError, match="the rate says the window"):
        LimitEntry(limit="5/s", window_s=1.0)


def test_a_section_is_registered_completely() -> None:
    assert get_args(SectionName) == SECTION_NAMES
    assert tuple(ConfigFile.model_fields) == ("version", *SECTION_NAMES)


def test_the_schema_describes_every_section() -> None:
    schema = json.loads(json_schema())
    assert schema["title"] == "tidegate.yaml"
    assert set(SECTION_NAMES) <= schema["properties"].keys()
    assert schema["required"] == ["version"]
