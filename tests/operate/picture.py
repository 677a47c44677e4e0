"""A dashboard drawn from a Prometheus's answers, roughly as Grafana lays it out, for those without a Grafana."""

import math
import time
from collections.abc import Callable, Sequence
from html import escape

from helm.observability.panels import COLUMNS, Dashboard, Panel, Query
from tests.operate.prometheus import Prometheus

UNIT_X, UNIT_Y, GAP = 56, 24, 8
STEPS = 60
FONT = 'font-family="sans-serif" font-size="11"'
COLOURS = ("#3366cc", "#dc6b2f", "#2f9e5b", "#8e5bb5", "#c23b62", "#4a9bb5", "#b59a2f", "#6b6b6b")
Series = tuple[str, list[tuple[float, float]]]


def picture(dashboard: Dashboard, prometheus: Prometheus, since_s: float) -> str:
    """An SVG of every panel with what it showed from ``since_s`` until now."""
    until_s = time.time()
    panels = iter(dashboard.panels())
    laid_out = dashboard.render()["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in laid_out) * UNIT_Y + 40
    width = COLUMNS * UNIT_X + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {FONT}>',
        f'<rect width="{width}" height="{height}" fill="#f4f5f7"/>',
        f'<text x="{GAP}" y="24" font-size="17" font-weight="600">{escape(dashboard.title)}</text>',
    ]
    for place in laid_out:
        grid = place["gridPos"]
        x, y = grid["x"] * UNIT_X + GAP, grid["y"] * UNIT_Y + 40
        if place["type"] == "row":
            parts.append(f'<text x="{x}" y="{y + 16}" font-size="13" font-weight="600">{escape(place["title"])}</text>')
            continue
        panel = next(panels)
        series = _series(panel, prometheus, since_s, until_s)
        w, h = grid["w"] * UNIT_X - GAP, grid["h"] * UNIT_Y - GAP
        parts.append(f'<g transform="translate({x} {y})"><rect width="{w}" height="{h}" rx="3" fill="white"/>')
        parts.append(f'<text x="8" y="16" font-weight="600">{escape(panel.title)}</text>')
        parts += _number(panel, series, w, h) if panel.kind == "stat" else _graph(panel, series, w, h, since_s, until_s)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _series(panel: Panel, prometheus: Prometheus, since_s: float, until_s: float) -> list[Series]:
    found = []
    for query in panel.queries:
        assert isinstance(query, Query)
        step_s = max(1.0, (until_s - since_s) / STEPS)
        for labels, points in prometheus.history(query.expr, since_s, until_s, step_s):
            name = query.legend
            for label, value in labels.items():
                name = name.replace("{{" + label + "}}", value)
            found.append((name, [(at, value) for at, value in points if not math.isnan(value)]))
    return [one for one in found if one[1]]


def _number(panel: Panel, series: Sequence[Series], width: float, height: float) -> list[str]:
    parts = []
    for number, (name, points) in enumerate(series[:3]):
        value = points[-1][1]
        colour = "#2f9e5b"
        for step in panel.steps:
            if value >= step.value:
                colour = {"orange": "#d9822b", "red": "#c0392b"}[step.colour]
        x = width * (number + 0.5) / min(3, len(series))
        parts.append(
            f'<text x="{x:.0f}" y="{height / 2 + 12:.0f}" font-size="19" font-weight="600" text-anchor="middle" '
            f'fill="{colour}">{escape(in_unit(value, panel.unit))}</text>'
            f'<text x="{x:.0f}" y="{height - 6:.0f}" text-anchor="middle" fill="#666">{escape(name)}</text>'
        )
    return parts or ['<text x="8" y="50" fill="#999">no data</text>']


def _graph(
    panel: Panel, series: Sequence[Series], width: float, height: float, since_s: float, until_s: float
) -> list[str]:
    left, right, top, bottom = 58.0, width - 8, 26.0, height - 34
    peak = max([value for _, points in series for _, value in points] or [1.0]) or 1.0
    lines = [step for step in panel.steps if step.value <= peak * 3]
    peak = max([peak, *(step.value for step in lines)]) * 1.1

    def x(at_s: float) -> float:
        return left + (right - left) * (at_s - since_s) / (until_s - since_s)

    def y(value: float) -> float:
        return bottom - (bottom - top) * value / peak

    parts = _axes(panel, left, right, y, peak)
    for step in lines:
        colour = {"orange": "#d9822b", "red": "#c0392b"}[step.colour]
        parts.append(
            f'<path d="M{left} {y(step.value):.1f}H{right}" stroke="{colour}" stroke-dasharray="5 3" fill="none"/>'
        )
    for number, (name, points) in enumerate(series[:6]):
        colour = COLOURS[number]
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        column, line = number % 3, number // 3
        parts.append(
            f'<text x="{left + column * (right - left) / 3:.0f}" y="{bottom + 14 + 12 * line:.0f}" fill="{colour}">'
            f"{escape(name or panel.title)}</text>"
        )
    return parts


def _axes(panel: Panel, left: float, right: float, y: Callable[[float], float], peak: float) -> list[str]:
    parts = []
    for quarter in range(5):
        value = peak * quarter / 4
        parts.append(f'<path d="M{left} {y(value):.1f}H{right}" stroke="#eee"/>')
        parts.append(
            f'<text x="{left - 4}" y="{y(value) + 4:.1f}" text-anchor="end" fill="#666">'
            f"{escape(in_unit(value, panel.unit))}</text>"
        )
    return parts


def in_unit(value: float, unit: str) -> str:
    """A value as Grafana would write it."""
    if unit == "s":
        return f"{value * 1000:.2f} ms" if value < 1 else f"{value:.1f} s"
    if unit == "percentunit":
        return f"{value * 100:.1f}%"
    if unit in {"bytes", "Bps"}:
        return f"{value / 1024:.0f} KiB" if value < 1024 * 1024 else f"{value / 1024 / 1024:.1f} MiB"
    text = f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.2g}"
    return text + {"reqps": "/s", "ops": "/s"}.get(unit, "")
