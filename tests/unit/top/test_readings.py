"""Rates between two readings."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO

from rich.console import Console

from tidegate.top.readings import Counts, Reading, compare
from tidegate.top.screen import as_json, render

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
NODE = {
    "node": "us-east-1", "region": "us-east", "connected": True, "applied_revision": 7, "behind": 2,
    "refused_reason": "limit[0] is odd",
}  # fmt: skip
BEFORE = Reading(
    at=AT,
    regions=("us-east", "eu-west"),
    nodes=(NODE, NODE | {"node": "us-east-2", "connected": False, "behind": 9}),
    by_region={"us-east": Counts(100, 10, 100)},
    by_client={"acme": Counts(90, 10, 90), None: Counts(10, 0, 10)},
    until={"us-east": AT - timedelta(seconds=1), "eu-west": None},
    blocks=1,
    overrides=("*: shadow",),
    since=AT,
)
NOW = replace(
    BEFORE,
    at=AT + timedelta(seconds=3),
    by_region={"us-east": Counts(300, 20, 300)},
    by_client={"acme": Counts(90, 20, 90), None: Counts(210, 0, 210)},
    until={"us-east": AT + timedelta(seconds=1), "eu-west": None},
)


def test_rates_are_by_the_time_that_a_region_vouches_for() -> None:
    east, west = compare(NOW, BEFORE).regions
    assert (east.allowed_per_s, east.denied_per_s, east.lag_s) == (100, 5, 2)
    assert (east.connected, east.nodes, east.behind) == (1, 2, 2)
    assert (west.allowed_per_s, west.lag_s, west.nodes) == (None, None, 0)


def test_the_busiest_of_this_moment_come_first() -> None:
    first, second = compare(NOW, BEFORE).busiest
    assert (first.client, first.allowed_per_s) == (None, 100)
    assert (second.client, second.denied_per_s) == ("acme", 5)
    assert [one.client for one in compare(BEFORE, None).busiest] == ["acme", None]
    assert compare(NOW, replace(NOW, at=AT)).regions[0].allowed_per_s is None, "no time has passed"


def test_who_was_not_among_those_that_were_read_has_no_rate_yet() -> None:
    known = {f"client-{number}": Counts(50_000, 0, 50_000) for number in range(100)}
    new = {"newcomer": Counts(50_001, 9, 50_001)}
    before = replace(BEFORE, by_client=known)
    view = compare(replace(NOW, by_client=new | {"client-7": Counts(50_010, 0, 50_010)}), before)
    assert [(one.client, one.allowed_per_s, one.denied_per_s) for one in view.busiest] == [
        ("client-7", 5, 0),
        ("newcomer", None, None),
    ]
    del known["client-99"]  # fewer than were asked for: these are all
    assert compare(replace(NOW, by_client=new), replace(before, by_client=known)).busiest[0].allowed_per_s == 25_000.5


def test_figures_of_a_watch_that_goes_on_are_not_called_those_of_this_hour() -> None:
    for passed, words in ((timedelta(hours=3), "allowed since 12:00"), (timedelta(hours=12), "since 2026-11-24 12:00")):
        console = Console(file=StringIO(), width=160)
        console.print(render(compare(replace(NOW, at=AT + passed), BEFORE)))
        assert words in console.file.getvalue()


def test_a_watch_that_began_anew_has_no_rates_yet() -> None:
    view = compare(replace(NOW, since=AT + timedelta(days=30)), BEFORE)
    assert {one.allowed_per_s for one in (*view.regions, *view.busiest)} == {None}


def test_says_all_of_it_in_a_pipe_and_for_machines() -> None:
    console = Console(file=StringIO(), width=120)
    console.print(render(compare(NOW, BEFORE), "no answer from http://x"))
    text = console.file.getvalue()
    for words in ("us-east", "1/2", "limit[0] is odd", "(anonymous)", "never received", "*: shadow", "no answer from"):
        assert words in text, words
    assert "\x1b" not in text
    assert '"allowed_per_s": 100.0' in as_json(compare(NOW, BEFORE))
    assert '"trouble": "no answer"' in as_json(compare(NOW, BEFORE), "no answer"), "the view is an old one"
