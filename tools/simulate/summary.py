"""Many runs together: as a table by kind of limit, and in a file, so that a long series can go on where it stopped."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from tidegate.contract.decoding import UNREADABLE
from tidegate.terminal import Fitting
from tools.simulate.checks import Outcome


class KeptError(Exception):
    """The file is no file of kept outcomes, and stays as it is; the message names it."""


def with_kept(path: Path | None, seeds: Iterable[int], run: Callable[[int], Outcome]) -> list[Outcome]:
    """The outcomes of ``seeds``. With a path: those that are kept there already are not run again, others are added.

    The file has one JSON array a line; a last line that was cut short is written anew. Raises ``KeptError``, and
    ``OSError`` where it cannot be read or written.
    """
    kept: dict[int, Outcome] = {}
    if path is None:
        return [run(seed) for seed in seeds]
    if path.is_file():
        whole = path.read_bytes()
        lines = whole[: whole.rfind(b"\n") + 1]
        try:
            kept = {one.seed: one for one in map(msgspec.json.Decoder(Outcome).decode, lines.splitlines())}
        except UNREADABLE as error:
            raise KeptError(f"{path}: does not hold outcomes of runs: {error}") from None
        rest = whole[len(lines) :]
        if rest and not rest.startswith(b"["):
            raise KeptError(f"{path}: does not hold outcomes of runs")
        if rest:
            path.write_bytes(lines)
    found = []
    with path.open("ab") as file:
        for seed in seeds:
            if seed not in kept:
                kept[seed] = run(seed)
                file.write(msgspec.json.encode(kept[seed]) + b"\n")
                file.flush()
            found.append(kept[seed])
    return found


def show_many(console: Console, outcomes: Sequence[Outcome]) -> None:
    """Print all runs, by kind and in all, with their faults and refusals."""
    table = Table(title=f"{len(outcomes):,} runs", box=None)
    headings = ("kind", "runs", "broken", "admitted", "over", "allowed", "of it", "transfers", "messages")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "kind" else "right")
    for kind in sorted({outcome.kind for outcome in outcomes}):
        table.add_row(*_row(kind, [outcome for outcome in outcomes if outcome.kind == kind]))
    table.add_row(*_row("all", outcomes))
    console.print(Fitting(table))
    console.print(
        "over, allowed: most units beyond the limit in a run; of it: the largest part of what that run allowed"
    )
    facts = Table(box=None, show_header=False)
    _add_all(facts, "faults: ", (outcome.faults for outcome in outcomes))
    _add_all(facts, "refused: ", (outcome.refusals for outcome in outcomes))
    console.print(facts)


def _row(kind: str, outcomes: Sequence[Outcome]) -> list[str]:
    sums = (
        len(outcomes),
        sum(1 for outcome in outcomes if outcome.violations),
        sum(sum(outcome.admitted.values()) for outcome in outcomes),
        max(outcome.overshoot for outcome in outcomes),
        max(outcome.bound for outcome in outcomes),
    )
    worst = max((outcome.overshoot / outcome.bound for outcome in outcomes if outcome.bound), default=0.0)
    moved = (sum(outcome.transfers for outcome in outcomes), sum(outcome.messages for outcome in outcomes))
    return [kind, *(f"{one:,}" for one in sums), f"{worst:.0%}", *(f"{one:,}" for one in moved)]


def _add_all(table: Table, what: str, counts: Iterable[dict[str, int]]) -> None:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    for name, times in sorted(total.items()):
        table.add_row(what + name, f"{times:,}")
