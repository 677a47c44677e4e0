"""Runs as a picture: for each limiter, side by side, the load, its factor, who is admitted, and the queue."""

from collections.abc import Mapping, Sequence
from html import escape

from tidegate.simulate.overload.scenario import Scenario
from tidegate.simulate.overload.world import Second

_WIDTH, _PANEL, _GAP = 300, 120, 26
_LEFT, _TOP = 52, 64
_COLOURS = ("#c23b62", "#2f9e5b", "#3366cc", "#8e5bb5", "#dc6b2f")
_FONT = 'font-family="system-ui, sans-serif" font-size="11"'
_ROWS = ("asked for and admitted, x capacity", "load (cpu) and factor", "queue, s")


def picture(scenario: Scenario, runs: Mapping[str, Sequence[Second]]) -> str:
    """An SVG document: a column a limiter, a row a quantity."""
    width = _LEFT + len(runs) * (_WIDTH + _GAP) + 8
    height = _TOP + len(_ROWS) * (_PANEL + _GAP) + 24
    title = f"{scenario.name}: {scenario.about}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {_FONT}>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="20" font-size="15" font-weight="600">{escape(title)}</text>',
    ]
    for place, group in enumerate(scenario.groups):
        left = _LEFT + 110 * place
        parts.append(f'<rect x="{left}" y="30" width="10" height="10" fill="{_COLOURS[place % 5]}"/>')
        parts.append(f'<text x="{left + 14}" y="39">{escape(group.name)} admitted</text>')
    for column, (name, seconds) in enumerate(runs.items()):
        parts += _column(scenario, name, seconds, _LEFT + column * (_WIDTH + _GAP), first=column == 0)
    return "\n".join([*parts, "</svg>", ""])


def _column(scenario: Scenario, name: str, seconds: Sequence[Second], left: int, *, first: bool) -> list[str]:
    parts = [f'<text x="{left}" y="{_TOP - 6}" font-weight="600">{escape(name)}<title>{escape(name)}</title></text>']
    offered = [sum(one.offered) / scenario.per_second for one in seconds]
    top = 1.1 * max([1.0, *offered])
    frame = _Frame(left, _TOP, scenario.duration_s, top)
    parts += frame.begin(scenario, _ROWS[0] if first else None)
    total = [0.0] * len(seconds)
    layers = []
    for place in range(len(scenario.groups)):
        total = [below + one.admitted[place] / scenario.per_second for below, one in zip(total, seconds, strict=True)]
        layers.append(total)
    for place in reversed(range(len(layers))):
        parts.append(frame.area(layers[place], _COLOURS[place % 5]))
    parts.append(frame.line(offered, "#999"))
    parts.append(frame.line([one.capacity / scenario.per_second for one in seconds], "#b00020"))

    frame = _Frame(left, _TOP + _PANEL + _GAP, scenario.duration_s, 1.1)
    parts += frame.begin(scenario, _ROWS[1] if first else None)
    parts.append(frame.line([one.cpu for one in seconds], "#dc6b2f"))
    factors = [one.factor for one in seconds if one.factor is not None]
    if factors:
        parts.append(frame.line(factors, "#3366cc", width=2))

    longest = max([2.0, *(one.queue_delay_s for one in seconds)])
    frame = _Frame(left, _TOP + 2 * (_PANEL + _GAP), scenario.duration_s, min(longest, scenario.queue_s) * 1.05)
    parts += frame.begin(scenario, _ROWS[2] if first else None)
    parts.append(frame.line([one.queue_delay_s for one in seconds], "#8e5bb5"))
    return parts


class _Frame:
    """One panel and its scales."""

    def __init__(self, left: int, top: int, duration_s: float, most: float) -> None:
        self._left, self._top, self._duration_s, self._most = left, top, duration_s, most

    def begin(self, scenario: Scenario, title: str | None) -> list[str]:
        """Axes, the overload shaded, and the title of the row."""
        begin, end = scenario.overload
        bottom, right = self._top + _PANEL, self._left + _WIDTH
        shade, wide = self._x(begin), self._x(end) - self._x(begin)
        parts = [
            f'<rect x="{shade:.1f}" y="{self._top}" width="{wide:.1f}" height="{_PANEL}" fill="#e4e4e4"/>',
            f'<path d="M{self._left} {self._top}V{bottom}H{right}" fill="none" stroke="#333"/>',
            f'<text x="{self._left - 4}" y="{self._top + 9}" text-anchor="end">{self._most:.1f}</text>',
            f'<text x="{self._left - 4}" y="{bottom}" text-anchor="end">0</text>',
            f'<text x="{right}" y="{bottom + 13}" text-anchor="end">{self._duration_s:g} s</text>',
        ]
        if title is not None:
            parts.append(f'<text x="{self._left + 4}" y="{self._top + 11}" fill="#555">{escape(title)}</text>')
        return parts

    def line(self, values: Sequence[float], colour: str, width: float = 1.2) -> str:
        """A curve, a value a second."""
        return f'<polyline points="{self._points(values)}" fill="none" stroke="{colour}" stroke-width="{width}"/>'

    def area(self, values: Sequence[float], colour: str) -> str:
        """All below a curve."""
        bottom = self._top + _PANEL
        ends = f"{self._x(len(values) - 1):.1f},{bottom} {self._left},{bottom}"
        return f'<polygon points="{self._points(values)} {ends}" fill="{colour}" fill-opacity="0.8"/>'

    def _x(self, at_s: float) -> float:
        return self._left + _WIDTH * at_s / self._duration_s

    def _points(self, values: Sequence[float]) -> str:
        places = (
            f"{self._x(second):.0f},{self._top + _PANEL * (1 - min(1.0, value / self._most)):.0f}"
            for second, value in enumerate(values)
        )
        return " ".join(places)
