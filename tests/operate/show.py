"""By hand: ``python -m tests.operate.show DIRECTORY``: the scenario once, every expression with its result, a picture.

Writes ``expressions.md``, of the scenario with its faults, and ``overview.svg``, of an ordinary minute after it.
"""

import asyncio
import sys
import tempfile
import threading
import time
from pathlib import Path

from helm.observability.__main__ import DASHBOARDS
from helm.observability.overview import OVERVIEW
from helm.observability.panels import Query
from testing.stack import Stack, stack_options
from tests.operate.load import Load
from tests.operate.picture import picture
from tests.operate.prometheus import Prometheus
from tests.operate.scenario import Scenario, targets

WARM_UP_S, PICTURED_S = 20, 60
PREFACE = """# Every expression, and what it answered

Every expression of dashboards, alerts and recording rules, asked of a real Prometheus right after the scenario of
`tests/operate/scenario.py`: two regions, mixed traffic, a store and a node that stood still for a moment, a backend
that reports overload, forged messages. An alert that answers nothing does not fire. Made by
`python -m tests.operate.show DIRECTORY`; a test asks the same at each run (`tests/operate/test_observability.py`).
`$__rate_interval` is 8 s here. Figures are of a small shared machine that did much else.

"""


def main(out: Path) -> None:
    """Run, draw, write, stop."""
    with tempfile.TemporaryDirectory() as scratch:
        stack = Stack(Path(scratch), stack_options(nodes_per_region=1), keep=False)
        prometheus = Prometheus(Path(scratch), targets(stack), rate_interval="8s")
        scenario = Scenario(stack, prometheus)
        try:
            stack.start()
            scenario.start()
            scenario.drive()
            (out / "expressions.md").write_text(PREFACE + expressions(prometheus))
            began_s = ordinary_minute(stack)
            (out / "overview.svg").write_text(picture(OVERVIEW, prometheus, began_s))
        finally:
            prometheus.stop()
            stack.stop()


def ordinary_minute(stack: Stack) -> float:
    """Most is allowed; one client of twenty asks for more than it may, one for more than a limit in shadow.

    Returns when the picture is to begin, epoch seconds.
    """
    roomy = {"name": "hourly", "limit": 1_000_000, "window_s": 3600}
    limits = {
        "umbrella": [roomy],
        "wayne": [{"name": "a-minute", "limit": 120, "window_s": 60}],
        "stark": [roomy, {"name": "on-trial", "limit": 120, "window_s": 60, "shadow": True}],
    }
    keys = {}
    for client, of_it in limits.items():
        stack.put(f"/v1/plans/of-{client}", {"limits": of_it})
        stack.put(f"/v1/clients/{client}", {"plan": f"of-{client}"})
        keys[client] = stack.post(f"/v1/clients/{client}/keys", {})["secret"]
    clients = ["wayne", "stark", *["umbrella"] * 18]
    questions = {f"{client} {nth}": {"api_key": keys[client]} for nth, client in enumerate(clients)}
    until_s = time.monotonic() + WARM_UP_S + PICTURED_S

    def ask(port: int) -> None:
        load = Load(port, questions)
        asyncio.run(load.run(4, lambda: time.monotonic() > until_s, most=100_000, pause_s=0.03))

    drivers = [threading.Thread(target=ask, args=(place.port,)) for place in stack.nodes]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    return time.time() - PICTURED_S


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
