"""Windows of limits on hourly usage, and what a batch adds to which row."""

from datetime import UTC, datetime

import pytest

from control_plane.usage.repository import Figures
from control_plane.usage.shipments import rows_of, totals_of
from control_plane.usage.windows import counted, current, period_start, unfit
from tidegate.contract.limits import LimitRule, Match
from tidegate.contract.usage import Denials, LimitName, Place, UsageBatch, UsageCell

NOW = datetime(2026, 11, 24, 13, 40, 20, tzinfo=UTC)  # a Tuesday
HOUR_US = 3_600_000_000


def rule(**changes):
    values = {"id": 1, "name": "n", "limit": 10, "algorithm": "fixed_window"} | changes
    return LimitRule(**values)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("changes", "start", "end"),
    [
        ({"calendar": "hour"}, "2026-11-24T13", "2026-11-24T14"),
        ({"calendar": "day"}, "2026-11-24T00", "2026-11-25T00"),
        ({"calendar": "day", "anchor_us": 6 * HOUR_US}, "2026-11-24T06", "2026-11-25T06"),
        ({"calendar": "day", "anchor_us": 15 * HOUR_US}, "2026-11-23T15", "2026-11-24T15"),
        ({"calendar": "week"}, "2026-11-23T00", "2026-11-30T00"),
        ({"calendar": "month"}, "2026-11-01T00", "2026-12-01T00"),
        ({"calendar": "month", "anchor_us": 24 * 24 * HOUR_US}, "2026-10-25T00", "2026-11-25T00"),
        # no day that some months have not: nodes begin on the 28th
        ({"calendar": "month", "anchor_us": 30 * 24 * HOUR_US}, "2026-10-28T00", "2026-11-28T00"),
        ({"window_us": 6 * HOUR_US}, "2026-11-24T12", "2026-11-24T18"),
        ({"window_us": HOUR_US}, "2026-11-24T13", "2026-11-24T14"),
    ],
)
def test_a_window_begins_where_the_limits_own_does(changes, start, end) -> None:
    window = current(rule(**changes), NOW)
    assert (window.start, window.end) == (at(start), at(end))
    assert period_start(rule(**changes), NOW) == window.start


def test_a_window_that_slides_takes_whole_hours_but_keeps_its_name_for_as_long_as_it_is() -> None:
    sliding = rule(algorithm="sliding_window", window_us=24 * HOUR_US)
    window = current(sliding, NOW)
    assert (window.start, window.end) == (at("2026-11-23T14"), NOW)
    assert period_start(sliding, NOW) == at("2026-11-24T00")
    assert current(rule(algorithm="sliding_window", window_us=HOUR_US), NOW).start == at("2026-11-24T12")


@pytest.mark.parametrize("algorithm", ["sliding_window", "sliding_log", "token_bucket"])
def test_of_a_window_that_slides_the_first_hour_weighs_as_much_as_lies_within_it(algorithm) -> None:
    def weights(hours: int, at: datetime) -> list[tuple[datetime, datetime, float]]:
        parts = counted(rule(algorithm=algorithm, window_us=hours * HOUR_US), at)
        return [(window.start, window.end, round(weight, 6)) for window, weight in parts]

    assert weights(1, NOW) == [(at("2026-11-24T13"), NOW, 1), (at("2026-11-24T12"), at("2026-11-24T13"), 0.327778)]
    assert weights(24, NOW)[1] == (at("2026-11-23T13"), at("2026-11-23T14"), 0.327778)
    assert weights(1, at("2026-11-24T13"))[1] == (at("2026-11-24T12"), at("2026-11-24T13"), 1)
    assert counted(rule(calendar="day"), NOW) == [(current(rule(calendar="day"), NOW), 1)]


def test_says_which_limits_hours_cannot_tell_of() -> None:
    assert unfit(rule(calendar="hour")) is None
    for changes, words in (
        ({"calendar": "minute"}, "shorter than an hour"),
        ({"window_us": HOUR_US - 1}, "shorter than an hour"),
        ({"calendar": "hour", "scope": "client+endpoint"}, "counts by client+endpoint"),
        ({"calendar": "hour", "match": Match(methods=("GET",))}, "some methods"),
        ({"calendar": "hour", "limit": 0}, "allows nothing"),
    ):
        assert words in str(unfit(rule(**changes)))


def test_a_request_counts_once_under_each_name_whichever_of_its_limits_objected() -> None:
    site = LimitName("_", "per-ip")
    place = Place("free", "get-user", (LimitName("free", "hourly"), site, site))
    cell = UsageCell(
        0, "acme", "key_1", 5, 6, (Denials((1, 2), (), 3, 4), Denials((2,), (0,), 1, 1), Denials((), (0,), 2, 2))
    )  # fmt: skip
    batch = UsageBatch(node="n", incarnation="0a", sequence=1, hour=500_000, until_ms=0, places=(place,), cells=(cell,))
    rows = {(key.plan, key.limit_name, key.key_id): figures for key, figures in rows_of([batch, batch]).items()}
    assert rows == {
        ("free", "", "key_1"): Figures(10, 8, 6, 12, 10),
        ("free", "hourly", ""): Figures(10, 0, 6, 12, 0),
        ("_", "per-ip", ""): Figures(10, 8, 0, 12, 10),
    }
    totals = totals_of(rows_of([batch]))
    assert {key.client for key in totals} == {""}
    assert sum(figures.denied for key, figures in totals.items() if not key.limit_name) == 4
