"""`python -m tools.bench.exchange`: measure, print, write docs/benchmarks-regions.md.

It takes about ten minutes. ``--part`` measures some parts only; what was measured before is kept in ``--json``, and the
document is written from all of it.
"""

import asyncio
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from tools.bench.exchange.cost import cost_of
from tools.bench.exchange.document import document, tables
from tools.bench.exchange.results import Results, Setting
from tools.bench.exchange.rights import plentiful, skewed
from tools.bench.machine import describe

DOCUMENT = Path(__file__).parents[3] / "docs" / "benchmarks-regions.md"
FULL = Setting(keys=100_000, rate=2_000, regions=3)
GROWTH = {
    "keys": [FULL._replace(keys=10_000)],
    "rate": [FULL._replace(rate=500)],
    "regions": [FULL._replace(regions=2)],
}
PARTS = ("full", *GROWTH, "plentiful", "skewed")


def main(
    *,
    part: Annotated[list[str] | None, typer.Option(help=f"Only these: {', '.join(PARTS)}.")] = None,
    seconds: Annotated[int, typer.Option(min=5, max=120, help="How long each load is measured.")] = 20,
    json: Annotated[Path, typer.Option(help="Keeps every figure, so that parts can be measured one by one.")] = Path(
        ".cache/exchange.json"
    ),
    write: Annotated[Path, typer.Option(help="The document.")] = DOCUMENT,
) -> None:
    """Measure the exchange between regions on nodes and stores that are processes of their own."""
    machine = describe()
    results = msgspec.json.decode(json.read_bytes(), type=Results) if json.exists() else Results(machine=machine)
    results = msgspec.structs.replace(results, machine=machine)
    for name in part or PARTS:
        print(f"measuring: {name}", flush=True)
        if name == "plentiful":
            results = msgspec.structs.replace(results, plentiful=asyncio.run(plentiful()))
        elif name == "skewed":
            results = msgspec.structs.replace(results, skewed=asyncio.run(skewed()))
        else:
            for setting in [FULL] if name == "full" else GROWTH[name]:
                kept = [one for one in results.costs if one.setting != setting]
                cost = asyncio.run(cost_of(setting, seconds))
                results = msgspec.structs.replace(results, costs=[*kept, cost])
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    print(tables(results, FULL))
    write.write_text(document(results, FULL))
    print(f"wrote {write}")


if __name__ == "__main__":
    typer.run(main)
