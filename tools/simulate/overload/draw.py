"""Runs as a picture: for each limiter the load, its factor, who is admitted, and the queue, on the same scales."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from tools.simulate.overload.scenario import Scenario
from tools.simulate.overload.world import Second

COLUMNS = 3
_WIDTH, _PANEL = 300, 110
_GAP_X, _GAP_Y = 50, 40
_LEFT, _TOP, _NAME = 46, 88, 44
_COLOURS = ("#c23b62", "#2f9e5b", "#3366cc", "#8e5bb5", "#dc6b2f")
_ASKED, _CAPACITY, _LOAD, _FACTOR, _QUEUE = "#777", "#b00020", "#dc6b2f", "#111", "#8e5bb5"
_FONT = 'font-family="system-ui, sans-serif" font-size="13"'
_ROWS = ("units a second, x capacity", "load (cpu) and factor", "queue, seconds")
_BAND = _NAME + len(_ROWS) * (_PANEL + _GAP_Y)


def picture(scenario: Scenario, runs: Mapping[str, Sequence[Second]]) -> str:
    """An SVG document: a limiter a column, a quantity a row; three limiters beside each other, then the next three."""
    width = _LEFT + min(COLUMNS, len(runs)) * (_WIDTH + _GAP_X)
    height = _TOP + math.ceil(len(runs) / COLUMNS) * _BAND
    title = escape(f"{scenario.name}: {scenario.about}")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {_FONT}>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="26" font-size="18" font-weight="600">{title}</text>',
        *_legend(scenario),
    ]
    scales = _scales(scenario, runs)
    for place, (name, seconds) in enumerate(runs.items()):
        left = _LEFT + place % COLUMNS * (_WIDTH + _GAP_X)
        parts += _column(scenario, name, seconds, scales, left, _TOP + place // COLUMNS * _BAND)
    return "\n".join([*parts, "</svg>", ""])


def _legend(scenario: Scenario) -> list[str]:
    boxes = [(f"{group.name} admitted", _COLOURS[place % 5]) for place, group in enumerate(scenario.groups)]
    lines = [("asked for", _ASKED), ("capacity", _CAPACITY), ("load", _LOAD), ("factor", _FACTOR), ("queue", _QUEUE)]
    parts, left = [], _LEFT
    for place, (text, colour) in enumerate([*boxes, *lines]):
        thick = 12 if place < len(boxes) else 3
        parts.append(f'<rect x="{left}" y="{52 - thick / 2}" width="14" height="{thick}" fill="{colour}"/>')
        parts.append(f'<text x="{left + 19}" y="57">{escape(text)}</text>')
        left += 34 + 8 * len(text)
    return parts


def _scales(scenario: Scenario, runs: Mapping[str, Sequence[Second]]) -> tuple[float, float, float]:
    """The highest value of each row, the same for all limiters: what looks higher is."""
    seconds = [one for run in runs.values() for one in run]
    asked = max([1.0, *(sum(one.offered) / scenario.per_second for one in seconds)])
    queue = max([1.0, *(one.queue_delay_s for one in seconds)])
    return 1.05 * asked, 1.05, 1.05 * min(queue, scenario.queue_s)


def _column(
    scenario: Scenario, name: str, seconds: Sequence[Second], scales: tuple[float, float, float], left: int, top: int
) -> list[str]:
    shown = f"{escape(name)}<title>{escape(name)}</title>"
    parts = [f'<text x="{left}" y="{top}" font-size="15" font-weight="600">{shown}</text>']
    frames = [
        _Frame(left, top + _NAME + row * (_PANEL + _GAP_Y), scenario.duration_s, most)
        for row, most in enumerate(scales)
    ]
    for frame, title in zip(frames, _ROWS, strict=True):
        parts += frame.begin(scenario, title)
    admission, load, queue = frames

    total = [0.0] * len(seconds)
    layers = []
    for place in range(len(scenario.groups)):
        total = [below + one.admitted[place] / scenario.per_second for below, one in zip(total, seconds, strict=True)]
        layers.append(total)
    for place in reversed(range(len(layers))):
        parts.append(admission.area(layers[place], _COLOURS[place % 5]))
    parts.append(admission.line([sum(one.offered) / scenario.per_second for one in seconds], _ASKED))
    parts.append(admission.line([one.capacity / scenario.per_second for one in seconds], _CAPACITY))
    parts.append(load.line([one.cpu for one in seconds], _LOAD))
    factors = [one.factor for one in seconds if one.factor is not None]
    if factors:
        parts.append(load.line(factors, _FACTOR, width=2))
    parts.append(queue.line([one.queue_delay_s for one in seconds], _QUEUE, width=1.6))
    return parts


class _Frame:
    """One panel and its scales."""

    def __init__(self, left: int, top: int, duration_s: float, most: float) -> None:
        self._left, self._top, self._duration_s, self._most = left, top, duration_s, most

    def begin(self, scenario: Scenario, title: str) -> list[str]:
        """Axes with their marks, the overload shaded, and the title above it."""
        begin, end = scenario.overload
        bottom, right = self._top + _PANEL, self._left + _WIDTH
        shade, wide = self._x(begin), self._x(end) - self._x(begin)
        parts = [
            f'<text x="{self._left}" y="{self._top - 6}" fill="#444">{escape(title)}</text>',
            f'<rect x="{shade:.1f}" y="{self._top}" width="{wide:.1f}" height="{_PANEL}" fill="#ececec"/>',
        ]
        for value in self._marks():
            y = self._y(value)
            parts.append(f'<path d="M{self._left} {y:.1f}H{right}" stroke="#ddd"/>')
            parts.append(f'<text x="{self._left - 5}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
        for at_s in range(0, int(self._duration_s) + 1, 60):
            x = self._x(at_s)
            unit = " s" if at_s + 60 > self._duration_s else ""
            parts.append(f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{at_s}{unit}</text>')
        parts.append(f'<path d="M{self._left} {self._top}V{bottom}H{right}" fill="none" stroke="#333"/>')
        return parts

    def line(self, values: Sequence[float], colour: str, width: float = 1.2) -> str:
        """A curve, a value a second."""
        return f'<polyline points="{self._points(values)}" fill="none" stroke="{colour}" stroke-width="{width}"/>'

    def area(self, values: Sequence[float], colour: str) -> str:
        """All below a curve."""
        bottom = self._top + _PANEL
        ends = f"{self._x(len(values) - 1):.1f},{bottom} {self._left},{bottom}"
        return f'<polygon points="{self._points(values)} {ends}" fill="{colour}"/>'

    def _marks(self) -> list[float]:
        """Round values from nothing up, five at most."""
        step = next(step for step in (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 50.0, 250.0, 1e9) if self._most / step < 5)
        return [step * place for place in range(int(self._most / step) + 1)]

    def _x(self, at_s: float) -> float:
        return self._left + _WIDTH * at_s / self._duration_s

    def _y(self, value: float) -> float:
        return self._top + _PANEL * (1 - min(1.0, value / self._most))

    def _points(self, values: Sequence[float]) -> str:
        return " ".join(f"{self._x(second):.0f},{self._y(value):.0f}" for second, value in enumerate(values))
