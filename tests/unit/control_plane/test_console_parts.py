"""The console's parts that need no server: figures, the verdict, vendored files, templates."""

import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from control_plane.console import render
from control_plane.console.app import PAGES, PARTS
from control_plane.console.figures import clock, duration, number, percent, window
from control_plane.console.pages.verdict import recognised, verdict

VENDORED = {
    # npm: htmx.org 2.0.11, htmx-ext-sse 2.2.4, uplot 1.6.32; for tests axe-core 4.14.1
    "htmx.min.js": "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717",
    "htmx-sse.min.js": "98a46496de0c3605fbffdce9167ba427bdd9553184f83f149c261891a92c0136",
    "uplot.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uplot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "axe.min.js": "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c",
}
ROOT = Path(__file__).parents[3]
PLACES = (render.HERE / "static" / "vendor", ROOT / "tests" / "console" / "vendor")
TEMPLATES = sorted((render.HERE / "templates").glob("*.html"))


def test_vendored_files_are_what_the_npm_packages_hold_and_each_has_its_licence():
    found = {path.name: path for place in PLACES for path in place.iterdir()}
    scripts = {name: path for name, path in found.items() if not name.endswith(".LICENSE")}
    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in scripts.items()} == VENDORED
    for name in scripts:
        assert found[f"{name.partition('.')[0]}.LICENSE"].stat().st_size > 500


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_template_holds_nothing_that_the_policy_would_stop(path: Path):
    text = path.read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=\"|javascript:|\|\s*safe", text)
    for script in re.findall(r"<script[^>]*>", text):
        assert 'src="{{ static(' in script
    render.environment().get_template(path.name)


def test_every_part_that_is_renewed_has_a_template_and_every_page_a_route():
    for part in PARTS.values():
        render.environment().get_template(part.template)
    assert len(PAGES) > 10


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (12345, "12,345"), (0.25, "0.2"), (12.7, "13"), (None, "\N{EN DASH}"), (3.0, "3")],
)
def test_numbers(value: float | None, text: str):
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.25, "250 ms"), (59, "59 s"), (90, "1 min 30 s"), (5400, "1 h 30 min"), (90_061, "1 d 1 h")],
)
def test_durations_have_two_units_at_most(seconds: float, text: str):
    assert duration(seconds) == text


def test_percents_windows_and_instants():
    assert [percent(1, 3), percent(1, 200), percent(0, 9), percent(5, 0)] == ["33%", "0.5%", "0%", "\N{EN DASH}"]
    assert window({"window_s": 3600.0, "window": None}) == "per hour"
    assert window({"window_s": 10, "window": None}) == "per 10 s"
    assert window({"window_s": None, "window": "month"}) == "per calendar month"
    assert clock(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == "2026-01-02 03:04:05"


def limits(
    used: int | None,
    *,
    status: str = "active",
    blocks: tuple[str, ...] = (),
    shadow: bool = False,
    algorithm: str = "fixed_window",
) -> dict:
    use = {"limit": 10, "used": used, "remaining": None if used is None else 10 - used, "reset_s": 90.0}
    use["reason"] = None if used is not None else "no node answered"
    one = {"name": "hourly", "algorithm": algorithm, "shadow": shadow, "regions": {"us-east": use}}
    return {"client": "acme", "status": status, "blocks": list(blocks), "limits": [one]}


DENIED = [{"limit": "hourly", "endpoint": "export", "region": "us-east", "denied": 7}]


@pytest.mark.parametrize(
    ("found", "usage", "tone", "words"),
    [
        (limits(0, status="suspended"), [], "bad", "suspended"),
        (limits(0, blocks=("b1",)), [], "bad", "blocked (b1)"),
        (limits(10), DENIED, "bad", "hourly is spent in us-east: 10 of 10 are used. It is whole again in 1 min 30 s."),
        (limits(10, algorithm="sliding_window"), [], "bad", "10 of 10 are used. Its window ends in 1 min 30 s."),
        (limits(10, shadow=True), [], "warn", "nearly out"),
        (limits(3), DENIED, "warn", "denied it within the last day, most often hourly at export in us-east (7"),
        (limits(9), [], "warn", "nearly out of hourly in us-east"),
        (limits(None), [], "warn", "No region could say"),
        (limits(3), [], "good", "Nothing stands in the way of acme"),
    ],
)
def test_the_verdict_is_the_weightiest_thing_that_can_be_said(found: dict, usage: list, tone: str, words: str):
    said = verdict(found, usage)
    assert said.tone == tone
    assert words in said.text


def test_requests_that_two_limits_denied_are_not_added_up():
    said = verdict(limits(3), [*DENIED, DENIED[0] | {"limit": "daily"}])
    assert "14" not in said.text
    assert "(7 requests)" in said.text


def test_a_limit_is_named_once_with_all_its_regions():
    found = limits(10)
    found["limits"][0]["regions"]["eu-west"] = found["limits"][0]["regions"]["us-east"]
    assert "hourly is spent in us-east and eu-west: 10 of 10 are used." in verdict(found, []).text
    found["limits"].append({**found["limits"][0], "name": "daily"})
    assert verdict(found, []).text.endswith(" daily is spent too.")


@pytest.mark.parametrize(
    ("text", "kind"),
    [("acme", "name"), ("tg_abcdefghijkl", "key"), ("203.0.113.9", "ip"), ("203.0.113.0/24", "ip"), ("12", "name")],
)
def test_what_is_asked_with_is_recognised_and_a_key_is_cut(text: str, kind: str):
    assert recognised(text) == (kind, "tg_abcde" if kind == "key" else text)
