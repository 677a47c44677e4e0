"""Runs as a picture: for each limiter the load, its factor, who is admitted, and the queue, on the same scales.

Needs matplotlib, which is the extra ``pictures``.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from tools.simulate.draw import LIMIT, svg_of
from tools.simulate.overload.scenario import Scenario
from tools.simulate.overload.world import Second

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
_COLOURS = ("#c23b62", "#2f9e5b", "#3366cc", "#8e5bb5", "#dc6b2f")
_ROWS = ("units/s, x capacity", "load (cpu) and factor", "queue, seconds")
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tidegate",
    "font.size": 9,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def picture(scenario: Scenario, runs: Mapping[str, Sequence[Second]]) -> str:
    """An SVG document: a limiter a column, a quantity a row; three limiters beside each other, then the next three."""
    bands = math.ceil(len(runs) / COLUMNS)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11, 5.2 * bands), layout="constrained")
        figure.suptitle(f"{scenario.name}: {scenario.about}", fontsize=13, fontweight="bold")
        grid = figure.subplots(bands * len(_ROWS), COLUMNS, sharex=True, sharey=False, squeeze=False)
        panels = {}
        for place, (name, seconds) in enumerate(runs.items()):
            column = [grid[place // COLUMNS * len(_ROWS) + row][place % COLUMNS] for row in range(len(_ROWS))]
            _draw(column, scenario, name, seconds)
            panels[name] = column
        for row, most in enumerate(_scales(scenario, runs)):
            for column in panels.values():
                column[row].set_ylim(0, most)
        for row in grid[-len(_ROWS) :]:
            for unused in row[len(runs) - (bands - 1) * COLUMNS :]:
                unused.axis("off")
        handles, labels = [], []
        for panel in next(iter(panels.values())):
            found = panel.get_legend_handles_labels()
            handles += found[0]
            labels += found[1]
        figure.legend(handles, labels, loc="outside lower center", ncols=8, frameon=False)
        return svg_of(figure)


def _scales(scenario: Scenario, runs: Mapping[str, Sequence[Second]]) -> tuple[float, float, float]:
    """The highest value of each row, the same for all limiters: what looks higher is."""
    seconds = [one for run in runs.values() for one in run]
    asked = max([1.0, *(sum(one.offered) / scenario.per_second for one in seconds)])
    queue = max([1.0, *(one.queue_delay_s for one in seconds)])
    return 1.05 * asked, 1.05, 1.05 * min(queue, scenario.queue_s)


def _draw(column: "Sequence[Axes]", scenario: Scenario, name: str, seconds: Sequence[Second]) -> None:
    """One limiter, from top to bottom."""
    admission, load, queue = column
    times = range(len(seconds))
    for axes, title in zip(column, _ROWS, strict=True):
        axes.axvspan(*scenario.overload, color="#ececec", linewidth=0)
        axes.set_ylabel(title)
        axes.set_xlim(0, scenario.duration_s)
    admission.set_title(name)
    admission.stackplot(
        times,
        [[one.admitted[at] / scenario.per_second for one in seconds] for at in range(len(scenario.groups))],
        labels=[f"{group.name} admitted" for group in scenario.groups],
        colors=_COLOURS,
        linewidth=0,
    )
    admission.plot(
        times, [sum(one.offered) / scenario.per_second for one in seconds], color="#777777", lw=1, label="asked for"
    )
    admission.plot(times, [one.capacity / scenario.per_second for one in seconds], color=LIMIT, lw=1, label="capacity")
    load.plot(times, [one.cpu for one in seconds], color="#dc6b2f", lw=1, label="load")
    factors = [math.nan if one.factor is None else one.factor for one in seconds]
    load.plot(times, factors, color="#111111", lw=1.6, label="factor")
    queue.plot(times, [one.queue_delay_s for one in seconds], color="#8e5bb5", lw=1.4, label="queue")
    queue.set_xlabel("seconds")
