"""By hand: ``python -m tests.operate.show DIRECTORY``: the scenario once, every expression with its result, a picture.

Writes ``expressions.md`` and ``overview.svg`` into the directory.
"""

import sys
import tempfile
from pathlib import Path

from helm.observability.__main__ import DASHBOARDS
from helm.observability.overview import OVERVIEW
from helm.observability.panels import Query
from tests.operate.picture import picture
from tests.operate.prometheus import Prometheus
from tests.operate.scenario import Scenario, targets
from tests.servers.stack import Stack, stack_options


def main(out: Path) -> None:
    """Run, draw, write, stop."""
    with tempfile.TemporaryDirectory() as scratch:
        stack = Stack(Path(scratch), stack_options(nodes_per_region=1), keep=False)
        prometheus = Prometheus(Path(scratch), targets(stack), rate_interval="8s")
        scenario = Scenario(stack, prometheus)
        try:
            stack.start()
            scenario.start()
            scenario.drive(calm_s=30.0)
            (out / "expressions.md").write_text(expressions(prometheus))
            (out / "overview.svg").write_text(picture(OVERVIEW, prometheus, scenario.began_s))
        finally:
            prometheus.stop()
            stack.stop()


def expressions(prometheus: Prometheus) -> str:
    """A table of every expression of dashboards and rules with how many series it has now, and the first value."""
    rows = ["| where | expression | series | for example |", "|---|---|---|---|"]
    named = [
        (f"{dashboard.uid}: {panel.title}", query.expr)
        for dashboard in DASHBOARDS
        for panel in dashboard.panels()
        for query in panel.queries
        if isinstance(query, Query)
    ]
    groups = prometheus.ask("rules")["groups"]
    named += [(f"rule {rule['name']}", rule["query"]) for group in groups for rule in group["rules"]]
    for where, expr in named:
        found = prometheus.values(expr)
        example = f"{found[0][0]} {found[0][1]:.4g}" if found else ""
        rows.append("| " + " | ".join(text.replace("|", "\\|") for text in (
            where, f"`{' '.join(expr.split())}`", str(len(found)), example)) + " |")  # fmt: skip
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
