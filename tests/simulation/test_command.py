"""`python -m tools.simulate`: what it prints, what it draws, and how it exits."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

from tests.simulation.test_directed import SCENARIOS
from tools.simulate.__main__ import app


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*arguments], env={"COLUMNS": "160"})
    return result.exit_code, result.output


def test_a_bundled_scenario_prints_and_draws(tmp_path: Path):
    code, output = invoke("three-way-cut", "--out", str(tmp_path))
    assert code == 0
    assert "overshoot" in output
    [picture] = tmp_path.iterdir()
    root = ET.parse(picture).getroot()
    names = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a", "b", "c", "cut"} <= set(names)


def test_worlds_by_chance_are_summed_up():
    code, output = invoke("--seed", "7", "--runs", "3")
    assert code == 0
    assert "3 runs" in output


def test_runs_that_are_kept_are_not_run_again(tmp_path: Path):
    """A series that was stopped in the middle of a line goes on from there."""
    file = tmp_path / "runs.jsonl"
    _, whole = invoke("--seed", "7", "--runs", "3", "--keep", str(file))
    kept = file.read_bytes()
    assert len(kept.splitlines()) == 3
    file.write_bytes(kept[:-10])
    code, output = invoke("--seed", "7", "--runs", "3", "--keep", str(file))
    assert code == 0
    assert output == whole
    assert file.read_bytes() == kept
    file.write_bytes(kept.replace(b'"random-7"', b'"kept"'))
    assert invoke("--seed", "7", "--runs", "3", "--keep", str(file))[1] == whole
    assert b'"kept"' in file.read_bytes()


def test_a_broken_promise_is_an_exit_code(tmp_path: Path):
    scenario = tmp_path / "impossible.toml"
    scenario.write_text(
        'name = "impossible"\nduration_s = 10\nregions = { a = 1, b = 1 }\n[expect]\nleast_used = { 0 = 0.5 }\n',
        "utf-8",
    )
    code, output = invoke(str(scenario))
    assert code == 1
    assert "BROKEN" in output


def test_a_bad_file_is_named(tmp_path: Path):
    scenario = tmp_path / "bad.toml"
    scenario.write_text('name = "bad"\nregions = { a = 1 }\nmodus = "strict"\n', "utf-8")
    code, output = invoke(str(scenario))
    assert code == 2
    assert "modus" in output


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ("regions = {}", "$.regions"),
        ("regions = { a = 1 }\nwindow_s = 0", "$.window_s"),
        ("regions = { a = 1 }\nnodes = 0", "$.nodes"),
        ("regions = { a = 1 }\n[[demand]]\nregion = 'b'", "'b' - at `$.demand[0].region`"),
        ("regions = { a = 1 }\n[[faults]]\nkind = 'lose_store'\nat_s = 1", "$.faults[0].region"),
        ("regions = { a = 1 }\n[[faults]]\nkind = 'kill_node'\nat_s = 1\nregion = 'a'\nnode = 7", "$.faults[0].node"),
        ("regions = { a = 1 }\n[[changes]]\nat_s = 1\nlimit = 1\nshares = { b = 1 }", "$.changes[0].shares"),
        ("regions = { a = 1 }\n[expect]\nleast_used = { first = 1 }", "$.expect.least_used"),
    ],
)
def test_what_cannot_be_run_is_named(tmp_path: Path, lines: str, named: str):
    scenario = tmp_path / "bad.toml"
    scenario.write_text(f'name = "bad"\n{lines}\n', "utf-8")
    code, output = invoke(str(scenario))
    assert code == 2
    assert named in output.replace("\n", "")


def test_bundled_scenarios_are_listed():
    code, output = invoke("--list")
    assert code == 0
    assert all(name in output for name in SCENARIOS)


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path):
    ours = tmp_path / "notes.txt"
    ours.write_text("not outcomes")
    for option in ("--keep", "--out"):
        for path in ("/dev/null/x", str(tmp_path) if option == "--keep" else str(ours)):
            code, output = invoke("--seed", "1", option, path)
            assert code == 2
            assert path in output.replace("\n", "")
    code, output = invoke("--keep", str(ours))
    assert (code, "does not hold outcomes" in output) == (2, True)
    assert ours.read_text() == "not outcomes"
    ours.write_bytes(b"\xff")
    assert invoke(str(ours))[0] == 2
