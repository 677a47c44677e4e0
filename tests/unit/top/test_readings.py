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


def test_says_all_of_it_in_a_pipe_and_for_machines() -> None:
    console = Console(file=StringIO(), width=120)
    console.print(render(compare(NOW, BEFORE), "no answer from http://x"))
    text = console.file.getvalue()
    for words in ("us-east", "1/2", "limit[0] is odd", "(anonymous)", "never received", "*: shadow", "no answer from"):
        assert words in text, words
    assert "\x1b" not in text
    assert '"allowed_per_s": 100.0' in as_json(compare(NOW, BEFORE))
    assert '"trouble": "no answer"' in as_json(compare(NOW, BEFORE), "no answer"), "the view is an old one"
