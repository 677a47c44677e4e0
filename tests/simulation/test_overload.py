"""Adaptive limits under a simulated overload, beside what others do; the promises of docs/adaptive.md."""

from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest
from typer.testing import CliRunner

from testing.effort import share
from tools.simulate.__main__ import app
from tools.simulate.overload.command import BUNDLED, compare
from tools.simulate.overload.day import healthy_day
from tools.simulate.overload.scenario import Expectation, Reporters, load

ADAPTIVE = ["adaptive", "adaptive, with capacity"]
SCENARIOS = sorted(path.stem for path in BUNDLED.glob("*.toml"))


def scenario(name: str):
    return load(BUNDLED / f"{name}.toml")


def test_what_is_promised_is_the_same_in_every_scenario_and_nothing_softer():
    promised = Expectation(
        most_excess=10.0, least_critical=0.99, recovered_within_s=60.0, most_oscillations=1, least_goodput=0.5
    )
    assert {name: scenario(name).expect for name in SCENARIOS} == dict.fromkeys(SCENARIOS, promised) | {
        "brownout": msgspec.structs.replace(promised, most_oscillations=2)  # chance alone moves its load by a sixth
    }


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("seed", [1, 2, 3][: share(ci=1, nightly=3)])
def test_promises_hold(name: str, seed: int):
    for run in compare(scenario(name), seed, ADAPTIVE):
        assert not run.broken, f"{run.name}: {run.broken} {run.measures}"
        begun = [second for second in run.seconds if second.at_s >= 60]
        beyond_s = sum(max(0.0, sum(second.admitted) / second.capacity - 1.0) for second in begun)
        assert beyond_s <= 10.0, f"{run.name}: work for {beyond_s:.1f} s of capacity was admitted in excess"


def test_the_lowest_class_gives_way_first_and_the_critical_class_never():
    (run,) = compare(scenario("overload"), 1, ["adaptive"])
    settled = [second for second in run.seconds if 80 <= second.at_s < 120]
    critical, standard, low = (
        sum(second.admitted[place] for second in settled) / sum(second.offered[place] for second in settled)
        for place in range(3)
    )
    assert critical == 1.0
    assert low < 0.02 < standard < 0.5


def test_without_it_the_same_overload_is_worse():
    runs = {run.name: run.measures for run in compare(scenario("overload"), 1)}
    for name in ADAPTIVE:
        assert runs[name].excess < runs["fixed limit"].excess < runs["no limit"].excess
        for rival in ("no limit", "fixed limit", "Gradient2", "AIMD"):
            assert runs[name].critical > runs[rival].critical
    assert runs["no limit"].goodput < 0.5 < runs["adaptive"].goodput


def test_a_fixed_limit_sees_nothing_of_a_slow_backend_the_adaptive_one_does():
    runs = {run.name: run.measures for run in compare(scenario("brownout"), 1, ["fixed limit", "adaptive"])}
    assert runs["fixed limit"].wasted > 0.3
    assert runs["adaptive"].wasted < 0.02


@pytest.mark.parametrize(
    ("reporters", "with_capacity"),
    [(Reporters(noise=0.2, dies_at_s=40_000), True), (Reporters(lies=9.0), False)],
)
def test_a_healthy_day_is_never_cut_and_no_class_either(reporters: Reporters, with_capacity: bool):
    world = msgspec.structs.replace(scenario("overload"), reporters=reporters)
    day = healthy_day(world, seed=1, with_capacity=with_capacity)
    assert day.cut_s == 0, day
    assert day.class_cut_s == {"critical": 0, "standard": 0, "low": 0}
    assert day.highest > 0.8, "the day had busy seconds"


def test_the_command_prints_a_table_and_draws(tmp_path: Path):
    result = CliRunner().invoke(app, ["brownout", "--out", str(tmp_path)], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    assert "Gradient2" in result.output
    [picture] = tmp_path.iterdir()
    titles = [text.text for text in ET.parse(picture).getroot().iter("{http://www.w3.org/2000/svg}text")]
    assert {"fixed limit", "Gradient2", "AIMD", *ADAPTIVE} <= set(titles)


def test_a_broken_promise_is_an_exit_code(tmp_path: Path):
    path = tmp_path / "impossible.toml"
    path.write_text('[overload]\nname = "impossible"\nexpect = { most_excess = -1.0 }\nduration_s = 130\n', "utf-8")
    result = CliRunner().invoke(app, [str(path)], env={"COLUMNS": "160"})
    assert result.exit_code == 1
    assert "BROKEN" in result.output


@pytest.mark.parametrize("text", ['name = "x"\nspeed = 1\n', 'name = "x"\npolicy = { target = 3.0 }\n'])
def test_a_bad_scenario_is_named(tmp_path: Path, text: str):
    path = tmp_path / "bad.toml"
    path.write_text(f"[overload]\n{text}", "utf-8")
    result = CliRunner().invoke(app, [str(path)], env={"COLUMNS": "160"})
    assert result.exit_code == 2
    assert "speed" in result.output or "target" in result.output
