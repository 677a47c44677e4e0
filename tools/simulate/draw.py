"""A run as a picture: units admitted by region, summed up within each window, against the limit; cuts are shaded."""

from collections.abc import Callable, Sequence
from html import escape

from tools.simulate.world import World

_WIDTH, _HEIGHT = 960, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 56, 44
_COLOURS = ("#3366cc", "#dc6b2f", "#2f9e5b", "#8e5bb5", "#c23b62", "#4a9bb5", "#b59a2f", "#6b6b6b")
_FONT = 'font-family="system-ui, sans-serif" font-size="12"'
_STEPS = 480


def picture(world: World) -> str:
    """An SVG document. Call it after the run."""
    scenario = world.scenario
    duration_s, window_s = scenario.duration_s, scenario.window_s
    names = list(scenario.regions)
    layers = _layers(world, names)
    top = max([scenario.limit * 1.15, *(column[-1] for column in layers)])

    def x(at_s: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * at_s / duration_s

    def y(units: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * units / top

    title = f"{scenario.name}: {scenario.mode} {scenario.algorithm}, {scenario.limit} a window of {window_s:g} s"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" {_FONT}>',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="20" font-size="15" font-weight="600">{escape(title)}</text>',
    ]
    for fault in scenario.faults:
        end_s = min(fault.until_s, duration_s) if fault.kind in {"cut", "delay"} else fault.at_s + duration_s / 400
        parts.append(
            f'<rect x="{x(fault.at_s):.1f}" y="{_TOP}" width="{max(1.5, x(end_s) - x(fault.at_s)):.1f}" '
            f'height="{_HEIGHT - _TOP - _BOTTOM}" fill="#999" fill-opacity="0.18"><title>{fault.kind}</title></rect>'
        )
    marks = _marks(world, x)
    for tier, name in reversed(list(enumerate(names))):
        points = [(x(0.0), y(0.0))]
        points += [(x(step * duration_s / _STEPS), y(column[tier])) for step, column in enumerate(layers)]
        points.append((x(duration_s), y(0.0)))
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(f'<polygon points="{path}" fill="{_COLOURS[tier % 8]}"><title>{escape(name)}</title></polygon>')
    parts += [*_axes(world, x, y), *marks]
    for number, name in enumerate(names):
        left = _LEFT + 100 * number
        parts.append(f'<rect x="{left}" y="32" width="10" height="10" fill="{_COLOURS[number % 8]}"/>')
        parts.append(f'<text x="{left + 15}" y="41">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _marks(world: World, x: Callable[[float], float]) -> list[str]:
    """What went wrong, in words where it began; what would overlap is left out."""
    parts, free = [], 0.0
    for fault in sorted(world.scenario.faults, key=lambda fault: fault.at_s):
        words = fault.kind.replace("_", " ")
        if x(fault.at_s) >= free:
            parts.append(f'<text x="{x(fault.at_s) + 4:.1f}" y="{_TOP + 12}" fill="#555">{words}</text>')
            free = x(fault.at_s) + 8 * len(words)
    return parts


def _layers(world: World, names: Sequence[str]) -> list[list[int]]:
    """For each step of time the units admitted since its window began: of the first region, of the first two, ..."""
    duration_us = world.scenario.duration_s * 1e6
    window_us = world.scenario.window_s * 1e6
    admitted = iter(sorted(world.record.admitted))
    one = next(admitted, None)
    columns, window = [], 0
    counts = dict.fromkeys(names, 0)
    for step in range(_STEPS + 1):
        at_us = world.start_us + duration_us * step / _STEPS
        while one is not None and one.at_us <= at_us:
            number = int((one.at_us - world.start_us) // window_us)
            if number != window:
                window, counts = number, dict.fromkeys(names, 0)
            counts[one.region] += one.cost
            one = next(admitted, None)
        if int((at_us - world.start_us) // window_us) != window:
            window, counts = int((at_us - world.start_us) // window_us), dict.fromkeys(names, 0)
        total, column = 0, []
        for name in names:
            total += counts[name]
            column.append(total)
        columns.append(column)
    return columns


def _axes(world: World, x: Callable[[float], float], y: Callable[[float], float]) -> list[str]:
    scenario = world.scenario
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = [f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="#333"/>']
    for tenth in range(0, 11, 2):
        at_s = scenario.duration_s * tenth / 10
        parts.append(f'<text x="{x(at_s):.1f}" y="{bottom + 18}" text-anchor="middle">{at_s:g} s</text>')
    for quarter in range(5):
        units = scenario.limit * quarter / 4
        parts.append(f'<text x="{_LEFT - 8}" y="{y(units) + 4:.1f}" text-anchor="end">{units:g}</text>')
    parts.append(f'<text x="{right}" y="20" text-anchor="end" fill="#555">units admitted since the window began</text>')
    windows = int(scenario.duration_s // scenario.window_s) + 1
    for number in range(windows):
        at = x(min(scenario.duration_s, number * scenario.window_s))
        parts.append(f'<path d="M{at:.1f} {_TOP}V{bottom}" stroke="#bbb" stroke-dasharray="2 4"/>')
    height = y(scenario.limit)
    parts.append(f'<path d="M{_LEFT} {height:.1f}H{right}" stroke="#b00020" stroke-width="1.5"/>')
    parts.append(f'<text x="{right}" y="{height - 6:.1f}" text-anchor="end" fill="#b00020">limit</text>')
    return parts
