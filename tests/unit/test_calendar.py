"""Calendar windows follow the civil calendar: checked against the standard library's."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.contract.calendar import calendar_anchor_us, month_of, month_start_us
from tidegate.contract.limits import LimitRule

DAY_US = 86_400_000_000


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2400, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_months_are_those_of_the_civil_calendar(instant: datetime):
    instant_us = int(instant.timestamp()) * 1_000_000
    month = month_of(instant_us)
    assert month == (instant.year - 1970) * 12 + instant.month - 1
    first = datetime(instant.year, instant.month, 1, tzinfo=UTC)
    assert month_start_us(month) == int(first.timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("calendar", "anchor_us", "expected_us"),
    [
        ("minute", 0, 0),
        ("day", 3 * DAY_US + 7, 7),
        ("week", 0, 4 * DAY_US),
        ("week", 6 * DAY_US, 6 * DAY_US),
        ("month", 0, 0),
        ("month", (31 + 14) * DAY_US + 5, 14 * DAY_US + 5),
        ("month", 30 * DAY_US, 27 * DAY_US),
    ],
)
def test_anchor_is_where_the_first_window_begins(calendar: str, anchor_us: int, expected_us: int):
    rule = LimitRule(id=1, name="x", algorithm="fixed_window", limit=1, calendar=calendar, anchor_us=anchor_us)
    assert calendar_anchor_us(rule) == expected_us
