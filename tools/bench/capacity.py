"""How much a region needs: arithmetic over the figures of ``docs/benchmarks.md``, written into ``docs/capacity.md``.

``python -m tools.bench.capacity`` writes the example anew; ``make bench`` does it after measuring.
"""

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- example: written by python -m tools.bench.capacity -->", "<!-- end of the example -->"
NODE_LOAD, STORE_LOAD = 0.6, 0.6
"""How busy a core may be on purpose: the rest is for peaks, for a zone that fails, and for the p99."""
FIXED_BYTES = 64 * 1024 * 1024


class MissingFigureError(Exception):
    """The page of benchmarks lacks a table or a row that the arithmetic needs."""


@dataclass(frozen=True)
class Figures:
    """What was measured. Microseconds of CPU, bytes."""

    node_us: Mapping[int, float]
    """Of the node for a decision, by limits a decision, one decision a request."""
    node_batch_us: Mapping[int, float]
    """The same in batches of 100."""
    store_limit_us: float
    """Of the store for a limit, 32 limits a script call, sliding window."""
    bytes_a_limit: float


@dataclass(frozen=True)
class Need:
    """One region: decisions a second at the peak, limits a decision, subjects with a counter at the same time."""

    name: str
    decisions_s: int
    limits: int
    counters: int
    batches: bool = False


@dataclass(frozen=True)
class Plan:
    """What it takes."""

    nodes: int
    shards: int
    store_cores: float
    store_bytes: int


EXAMPLES = (
    Need("a start-up", 500, 3, 100_000),
    Need("a platform", 20_000, 3, 3_000_000),
    Need("a large one", 100_000, 3, 20_000_000),
    Need("a million a second", 1_000_000, 3, 100_000_000),
    Need("the same in batches of 100", 1_000_000, 3, 100_000_000, batches=True),
)


def read(page: str) -> Figures:
    """The figures on the page of benchmarks. Raises ``MissingFigureError``."""
    single = _table(page, "CPU for a decision, 64 connections")
    batch = _table(page, "100 decisions a request")
    store = _table(page, "CPU of the store for one limit")
    memory = _table(page, "Memory of the store")
    return Figures(
        node_us={limits: _figure(single, "CPU µs", server="lane", limits=str(limits)) for limits in (1, 3)},
        node_batch_us={
            limits: _figure(batch, "CPU µs", **{"server": "lane", "limits": str(limits), "conn.": "4"})
            for limits in (1, 3)
        },
        store_limit_us=_figure(store, "32 a call", store="Valkey", algorithm="sliding_window"),
        bytes_a_limit=_figure(memory, "bytes a limit", store="Valkey", algorithm="sliding_window"),
    )


def plan(need: Need, figures: Figures) -> Plan:
    """Cores by CPU time and the load that is wanted; two nodes at least, one more than the load needs."""
    by_limits = figures.node_batch_us if need.batches else figures.node_us
    each_us = by_limits[1] + (by_limits[3] - by_limits[1]) / 2 * (need.limits - 1)
    node_cores = need.decisions_s * each_us / 1e6
    store_cores = need.decisions_s * need.limits * figures.store_limit_us / 1e6
    used_bytes = need.counters * figures.bytes_a_limit + FIXED_BYTES
    return Plan(
        nodes=max(2, math.ceil(node_cores / NODE_LOAD) + 1),
        shards=max(1, math.ceil(store_cores / STORE_LOAD)),
        store_cores=store_cores,
        # at 85% addresses coarsen; a rewrite of the append-only file copies what changes meanwhile
        store_bytes=math.ceil(used_bytes / 0.7),
    )


def example(figures: Figures) -> str:
    """The table of examples, with the figures that it was made from."""
    node = f"{figures.node_us[1]:.1f} µs for a decision with 1 limit and {figures.node_us[3]:.1f} µs with 3"
    lines = [
        f"With a node's {node} ({figures.node_batch_us[3]:.1f} µs in batches of 100),",
        f"the store's {figures.store_limit_us:.1f} µs a limit, and {figures.bytes_a_limit:.0f} bytes a counter:",
        "",
        "| one region | decisions/s | limits | counters | nodes | Valkey shards (busy cores) | `maxmemory` in all |",
        "|---|---|---|---|---|---|---|",
    ]
    for need in EXAMPLES:
        made = plan(need, figures)
        lines.append(
            f"| {need.name} | {need.decisions_s:,} | {need.limits} | {need.counters:,} | {made.nodes} | "
            f"{made.shards} ({made.store_cores:.2f}) | {made.store_bytes / 2**30:.1f} GiB |"
        )
    return "\n".join(lines)


def write() -> None:
    """Replace the example in ``docs/capacity.md``."""
    page = DOCS / "capacity.md"
    text = page.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    figures = read((DOCS / "benchmarks.md").read_text())
    page.write_text(f"{before}{BEGIN}\n{example(figures)}\n{END}{after}")


def _table(page: str, heading: str) -> Sequence[Mapping[str, str]]:
    found = re.search(rf"^## {re.escape(heading)}[^\n]*\n\n((?:\|[^\n]*\n)+)", page, re.MULTILINE)
    if found is None:
        raise MissingFigureError(f"docs/benchmarks.md has no table {heading!r}")
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]
    return [dict(zip(head, row, strict=True)) for row in rows]


def _figure(table: Sequence[Mapping[str, str]], column: str, **row: str) -> float:
    for cells in table:
        if row.items() <= cells.items():
            return float(cells[column].replace(",", ""))
    raise MissingFigureError(f"docs/benchmarks.md has no row {row}")


if __name__ == "__main__":
    try:
        write()
    except MissingFigureError as error:
        sys.exit(str(error))
