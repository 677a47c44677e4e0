"""docs/benchmarks-regions.md: text that explains, and figures that only come from the results."""

from collections.abc import Iterator, Sequence

from tools.bench.exchange.results import Cost, Results, Setting

MOST_CPU = 0.10
MOST_MB_S = 2.0
LEAST_USED = 0.97
ABOUT = """\
# Benchmarks: between regions

Written by `python -m tools.bench.exchange`: no figure in this file was typed by hand. Nodes, agents and stores are
processes of their own, two nodes, two agents and a Valkey a region, all on one machine with the load; each region
reaches another through a proxy.

- Exchange: every key is asked for once, and its first use is sent; after that keys are asked for by chance, in
  batches of 100 over all nodes in turn, under a sliding window of an hour for each address. CPU is the kernel's account
  of the busiest agent's process. What the exchange takes of it is what `shared` limits take more than `regional` ones,
  of which nothing is sent, under the same load of the same processes, one after the other: other work on the machine
  shows as a difference, also below zero. "Idle" is without load: all that goes on in the background, heartbeats
  included. Bytes are what a region sends to one peer, compressed, both of its agents together; messages and cells are
  to all peers.
- Rights: {requests} requests under a limit that both regions have plenty of; and one whole window of {window} s with
  {delay} ms each way between two regions of equal shares, 95 of 100 requests in one of them.

Machine: {cpu}, {cores} cores, load average {load:.1f} when it began (the machine is shared with other work), kernel
{kernel}, Python {python}, Valkey {valkey}; {seconds} s a run.
"""
GROWTH = (
    "keys", "requests/s in all", "came through", "regions", "CPU an agent", "idle", "the exchange", "MB/s a peer",
    "messages/s", "cells/s",
)  # fmt: skip


def document(results: Results, full: Setting) -> str:
    """The whole document; ``full`` is the setting that the goals are for."""
    machine, skewed = results.machine, results.skewed
    about = ABOUT.format(
        requests=f"{results.plentiful.requests:,}" if results.plentiful else "-",
        window=skewed.window_s if skewed else "-", delay=skewed.delay_ms if skewed else "-",
        cpu=machine.cpu, cores=machine.cores, load=machine.load_average, kernel=machine.kernel, python=machine.python,
        valkey=machine.versions.get("Valkey", "?"),
        seconds=" or ".join(sorted({f"{one.seconds:g}" for one in results.costs})),
    )  # fmt: skip
    return about + "\n" + tables(results, full)


def tables(results: Results, full: Setting) -> str:
    """What was wanted and reached, and how the exchange grows."""
    wanted = _table(("", "wanted", "measured", "reached"), list(_goals(results, full)))
    rows = [_growth(one) for one in sorted(results.costs, key=lambda one: one.setting, reverse=True)]
    return f"## Wanted and reached\n\n{wanted}\n## How the exchange grows\n\n{_table(GROWTH, rows)}"


def _goals(results: Results, full: Setting) -> Iterator[Sequence[str]]:
    for cost in (one for one in results.costs if one.setting == full):
        what = f"{full.keys:,} keys, {full.rate:,} requests/s in all, {full.regions} regions: "
        yield (
            what + "the exchange, of one core an agent", f"under {MOST_CPU:.0%}", f"{cost.exchange:.1%}",
            _yes(cost.exchange < MOST_CPU),
        )  # fmt: skip
        yield (
            what + "sent to a peer", f"under {MOST_MB_S:g} MB/s", f"{cost.sent_mb_s:.3f} MB/s",
            _yes(cost.sent_mb_s < MOST_MB_S),
        )  # fmt: skip
    if results.plentiful is not None:
        said = results.plentiful.messages + results.plentiful.questions
        what = f"`strict` with plenty of rights, {results.plentiful.requests:,} requests: messages and questions"
        yield (what, "0", str(said), _yes(not said))
    if results.skewed is not None:
        one = results.skewed
        what = (
            f"`strict`, {one.asked:,} requests under {one.limit:,} a window, 95:5 against equal shares: "
            f"admitted ({' + '.join(f'{units:,}' for units in one.admitted.values())}, {one.questions} questions, "
            f"{one.degraded} without the store)"
        )
        yield (what, f"{LEAST_USED:.0%} to 100%", f"{one.used:.1%}", _yes(LEAST_USED <= one.used <= 1))


def _growth(cost: Cost) -> Sequence[str]:
    keys, rate, regions = cost.setting
    return (
        f"{keys:,}", f"{rate:,}", f"{cost.rate:,.0f}", str(regions), f"{cost.cpu:.1%}", f"{cost.cpu_idle:.1%}",
        f"{cost.exchange:.1%}", f"{cost.sent_mb_s:.3f}", f"{cost.messages_s:.1f}", f"{cost.cells_s:.0f}",
    )  # fmt: skip


def _yes(reached: bool) -> str:
    return "yes" if reached else "**no**"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
