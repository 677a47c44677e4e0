"""A run as a picture: units admitted by region, summed up within each window, against the limit; cuts are shaded.

Needs matplotlib, which is the extra ``pictures``.
"""

import re
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from tools.simulate.scenario import Fault
from tools.simulate.world import World

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#3366cc", "#dc6b2f", "#2f9e5b", "#8e5bb5", "#c23b62", "#4a9bb5", "#b59a2f", "#6b6b6b")
LIMIT = "#b00020"
_STEPS = 300
_LONG = re.compile(r"(?<![\w#.])\d+\.\d{2,}")
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tidegate",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}


def picture(world: World) -> str:
    """An SVG document. Call it after the run."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.6, 4.2), layout="constrained")
        axes = figure.add_subplot()
        draw(axes, world)
        scenario = world.scenario
        what = f"{scenario.mode} {scenario.algorithm}, {scenario.limit} in {scenario.window_s:g} s"
        axes.set_title(f"{scenario.name}: {what}")
        return svg_of(figure)


def side_by_side(worlds: Mapping[str, World], names: Sequence[str]) -> str:
    """An SVG document of several runs on the same scale, each under its title; ``names`` are the regions'."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.6, 3.6), layout="constrained")
        for axes, (title, world) in zip(figure.subplots(1, len(worlds), sharey=True), worlds.items(), strict=True):
            draw(axes, world, names)
            axes.set_title(title)
        for axes in figure.axes[1:]:
            axes.set_ylabel("")
        return svg_of(figure)


def draw(axes: "Axes", world: World, names: Sequence[str] = ()) -> None:
    """One run on axes of its own."""
    scenario = world.scenario
    names = names or list(scenario.regions)
    times, layers = _admitted(world)
    axes.stackplot(times, layers, labels=names, colors=COLOURS, linewidth=0)
    axes.axhline(scenario.limit, color=LIMIT, linewidth=1.5)
    axes.annotate(
        "limit", (scenario.duration_s, scenario.limit), (0, 4), textcoords="offset points", ha="right", color=LIMIT
    )
    free_s = 0.0
    for fault in sorted(scenario.faults, key=lambda fault: fault.at_s):
        free_s = _shade(axes, fault, scenario.duration_s, free_s)
    axes.set(xlim=(0, scenario.duration_s), ylim=(0, None), xlabel="seconds", ylabel="admitted in this window")
    axes.margins(y=0.15)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=len(names), frameon=False)


def svg_of(figure: Figure) -> str:
    """The figure as a document that is the same whenever it is drawn."""
    out = StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    short = _LONG.sub(lambda number: f"{float(number[0]):.1f}", out.getvalue())
    return "\n".join(line.rstrip() for line in short.splitlines()) + "\n"


def _shade(axes: "Axes", fault: Fault, duration_s: float, free_s: float) -> float:
    """Shade a fault and name it, unless a name ends only at ``free_s``; where the names now end."""
    end_s = min(fault.until_s, duration_s) if fault.kind in {"cut", "delay"} else fault.at_s + duration_s / 400
    axes.axvspan(fault.at_s, end_s, color="#999999", alpha=0.18, linewidth=0)
    if fault.at_s < free_s:
        return free_s
    words = fault.kind.replace("_", " ")
    axes.annotate(
        words, (fault.at_s, 1), (3, -10), xycoords=("data", "axes fraction"), textcoords="offset points", color="#555"
    )  # fmt: skip
    return fault.at_s + duration_s * len(words) / 100


def _admitted(world: World) -> tuple[list[float], list[list[int]]]:
    """For each step of time, and then by region, the units admitted since its window began."""
    duration_us = world.scenario.duration_s * 1e6
    window_us = world.scenario.window_s * 1e6
    admitted = iter(sorted(world.record.admitted))
    one = next(admitted, None)
    names = list(world.scenario.regions)
    times: list[float] = []
    layers: list[list[int]] = [[] for _ in names]
    window, counts = 0, dict.fromkeys(names, 0)
    for step in range(_STEPS + 1):
        at_us = duration_us * step / _STEPS
        while one is not None and one.at_us - world.start_us <= at_us:
            number = int((one.at_us - world.start_us) // window_us)
            if number != window:
                window, counts = number, dict.fromkeys(names, 0)
            counts[one.region] += one.cost
            one = next(admitted, None)
        if int(at_us // window_us) != window:
            window, counts = int(at_us // window_us), dict.fromkeys(names, 0)
        times.append(at_us / 1e6)
        for layer, name in zip(layers, names, strict=True):
            layer.append(counts[name])
    return times, layers
