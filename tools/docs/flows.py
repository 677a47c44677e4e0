"""The pictures of ``docs/how-it-works.md``, drawn from its tables: ``python -m tools.docs.flows``."""

import re
from html import escape
from pathlib import Path
from typing import Final, NamedTuple

DOCS: Final = Path(__file__).parents[2] / "docs"
FLOWS: Final = ("Decision", "Config", "Counts", "Load", "Usage")
_STEP = re.compile(r"^\| ([\w' ]+) \| `([^`]+)` \| (?:`([^`]+)`)? ?\| (.+) \|$", re.MULTILINE)
_WIDTH, _ROW, _TOP, _BOX = 960, 34, 52, 26
_INK, _QUIET, _PAPER = "#1f2933", "#7b8794", "#ffffff"
_COLOURS: Final = {
    "node": "#dbeafe",
    "store": "#dcfce7",
    "agent": "#fef3c7",
    "peer's agent": "#fde68a",
    "peer's store": "#bbf7d0",
    "control plane": "#ede9fe",
}


class Step(NamedTuple):
    """One row of a flow's table."""

    where: str
    file: str
    function: str
    what: str


def steps_of(flow: str) -> list[Step]:
    """The steps of a flow, from the first table below its heading."""
    page = (DOCS / "how-it-works.md").read_text("utf-8")
    section = page.split(f"\n## {flow}\n", 1)[1].split("\n## ", 1)[0]
    return [Step(*found) for found in _STEP.findall(section) if found[0] in _COLOURS]


def picture(flow: str) -> str:
    """A column for each process, time downwards, an arrow for each step."""
    steps = steps_of(flow)
    columns = list(dict.fromkeys(step.where for step in steps))
    width = _WIDTH / len(columns)
    centre = {where: width * (at + 0.5) for at, where in enumerate(columns)}
    height = _TOP + _ROW * len(steps) + 8
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
            f'aria-label="The {flow.lower()} flow" font-family="ui-monospace, monospace" font-size="12">'
        ),
        (
            f'<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0 L8 4 L0 8 z" fill="{_QUIET}"/></marker></defs>'
        ),
        f'<rect width="{_WIDTH}" height="{height}" rx="6" fill="{_PAPER}"/>',
    ]
    for where, x in centre.items():
        parts += [
            f'<line x1="{x:.0f}" y1="36" x2="{x:.0f}" y2="{height - 8}" stroke="#e4e7eb" stroke-width="2"/>',
            (
                f'<text x="{x:.0f}" y="24" text-anchor="middle" font-family="sans-serif" font-size="14" '
                f'font-weight="600" fill="{_INK}">{escape(where)}</text>'
            ),
        ]
    for at, step in enumerate(steps):
        x, y = centre[step.where], _TOP + _ROW * at
        box = min(width - 12, 310)
        if at:
            before = centre[steps[at - 1].where]
            way = (x > before) - (x < before)
            parts.append(
                f'<path d="M{before + way * box / 2:.0f} {y - (_ROW - _BOX if not way else _ROW - _BOX / 2):.0f} '
                f'L{x - way * box / 2:.0f} {y if not way else y + _BOX / 2:.0f}" stroke="{_QUIET}" '
                f'stroke-width="1.4" fill="none" marker-end="url(#a)"/>'
            )
        label = step.function or Path(step.file).name
        parts += [
            (
                f'<rect x="{x - box / 2:.0f}" y="{y}" width="{box:.0f}" height="{_BOX}" rx="5" '
                f'fill="{_COLOURS[step.where]}" stroke="#cbd2d9"/>'
            ),
            f'<text x="{x:.0f}" y="{y + 17}" text-anchor="middle" fill="{_INK}">{escape(label)}</text>',
            f"<title>{escape(step.file)}: {escape(step.what)}</title>",
        ]
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Write the pictures anew."""
    for flow in FLOWS:
        (DOCS / f"pictures/flow-{flow.lower()}.svg").write_text(picture(flow), "utf-8")


if __name__ == "__main__":
    main()
