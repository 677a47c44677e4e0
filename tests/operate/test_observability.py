"""Metrics, dashboards and rules against a running stack and a real Prometheus: nothing in them is made up."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import asyncpg
import httpx
import pytest

from helm.observability.__main__ import DASHBOARDS, differing
from helm.observability.panels import Query, Sql
from testing.stack import wait_for
from tests.operate.prometheus import ROOT, RULES, Prometheus
from tests.operate.scenario import Scenario, targets

PANELS = [(dashboard, panel) for dashboard in DASHBOARDS for panel in dashboard.panels()]


@pytest.fixture(scope="module")
def scenario(start_module_stack, tmp_path_factory):
    stack = start_module_stack(nodes_per_region=1)
    prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), targets(stack))
    scenario = Scenario(stack, prometheus)
    try:
        scenario.start()
        scenario.drive()
        yield scenario
    finally:
        prometheus.stop()
        stack.stop()


def test_every_expression_of_every_panel_parses_and_returns_data(scenario):
    empty = [
        f"{dashboard.uid}, {panel.title}: {query.expr}"
        for dashboard, panel in PANELS
        for query in panel.queries
        if isinstance(query, Query) and not scenario.prometheus.values(query.expr)
    ]
    assert empty == []


async def test_every_query_of_usage_returns_rows_of_the_client_that_was_chosen(scenario):
    url = scenario.stack.part("control-plane").environ()["TIDEGATE_DATABASE_URL"]
    connection = await asyncpg.connect(url.replace("postgresql+asyncpg", "postgresql"))
    try:
        for dashboard, panel in PANELS:
            for query in panel.queries:
                if isinstance(query, Sql):
                    rows = await connection.fetch(in_postgres(query.text))
                    assert rows, f"{dashboard.title}, {panel.title}: {query.text}"
                    assert any(value is not None for value in rows[0].values()), f"{panel.title}: {rows}"
        denied = await connection.fetchval(
            "SELECT sum(denied) FROM usage_hourly WHERE client = 'globex' AND limit_name = ''"
        )
    finally:
        await connection.close()
    assert denied > 0


def in_postgres(text: str) -> str:
    """A query with Grafana's macros and variables filled in."""
    text = re.sub(r"\$__timeFilter\((\w+)\)", r"\1 BETWEEN now() - interval '1 day' AND now()", text)
    return text.replace("${client:sqlstring}", "'globex'")


def test_what_a_dashboard_lets_one_choose_is_there(scenario):
    for dashboard in DASHBOARDS:
        for variable in dashboard.variables:
            if not variable.of_postgres:
                metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable.query).groups()
                assert scenario.prometheus.ask(f"label/{label}/values", **{"match[]": metric})


def test_every_rule_is_evaluated_and_what_is_recorded_has_values(scenario):
    groups = scenario.prometheus.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == sum(path.read_text().count("expr:") for path in RULES)
    for rule in rules:
        assert rule["health"] == "ok", f"{rule['name']}: {rule.get('lastError')}"
        scenario.prometheus.values(rule["query"])
        if rule["type"] == "recording":
            assert scenario.prometheus.values(rule["name"]), rule["name"]


def test_the_faults_of_the_scenario_can_be_seen(scenario):
    ask = scenario.prometheus.values
    assert sum(value for _, value in ask('rate_limit_degraded_total{region="us-east"}')) > 0
    refused = {
        labels["reason"]: value for labels, value in ask('tidegate_peer_messages_refused_total{region="us-east"}')
    }
    assert refused["bad_signature"] == 1, refused
    assert sum(value for _, value in ask('tidegate_peer_failures_total{region="us-east"}')) > 0
    assert sum(value for _, value in ask('tidegate_control_plane_requests_total{status="401"}')) > 0


def test_logs_say_what_happens_and_not_each_request_or_run_of_a_job(scenario):
    files = [*scenario.stack.temp_dir.glob("*/logs/node-*.log"), *scenario.stack.temp_dir.glob("*/logs/control-*.log")]
    assert len(files) == 1 + len(scenario.stack.nodes)
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert {line["logger"].partition(".")[0] for line in lines}.isdisjoint({"httpx", "httpcore", "apscheduler"})
    assert any("the store does not decide (" in line["event"] for line in lines)
    assert any("the store decides again" in line["event"] for line in lines)


def test_metrics_agree_with_what_clients_saw(scenario):
    counted = {labels["result"]: value for labels, value in
               scenario.prometheus.values("sum by (result) (rate_limit_checks_total)")}  # fmt: skip
    assert counted["allowed"] == sum(load.allowed.total() for load in scenario.loads)
    assert counted["denied"] == sum(load.denied.total() for load in scenario.loads)
    # a suspended client is refused with 403: no decision
    assert counted["refused"] == sum(len(load.failed) for load in scenario.loads)
    assert all("403" in failure for load in scenario.loads for failure in load.failed)
    blocked = scenario.prometheus.values("sum by (policy) (rate_limit_blocked_total)")
    assert {labels["policy"] for labels, _ in blocked} == {"few", "per-ip", "protect", "exact"}


def exported(scenario) -> dict[str, set[str]]:
    """Every metric of the stack and the labels of its samples, as Prometheus names it."""
    found: dict[str, set[str]] = {}
    for addresses in targets(scenario.stack).values():
        for address in addresses:
            text = httpx.get(f"http://{address}/metrics", trust_env=False).text
            families = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
            for name, kind in families.items():
                suffix = "(?:_bucket|_count|_sum)?" if kind == "histogram" else ""
                samples = re.findall(rf"^{name}{suffix}(?:{{(.*)}})? \S+$", text, re.MULTILINE)
                labels = {label for sample in samples for label in re.findall(r'(\w+)="', sample)}
                found.setdefault(name, set()).update(labels - {"le"})
    return {name: labels for name, labels in found.items() if not name.endswith("_created")}


def documented() -> dict[str, set[str]]:
    """Every metric of the page and its labels."""
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def test_every_metric_is_documented_and_every_documented_metric_exists(scenario):
    shown, described = exported(scenario), documented()
    assert shown.keys() - described.keys() == set(), "exported, but not in docs/metrics.md"
    assert described.keys() - shown.keys() == set(), "in docs/metrics.md, but not exported"
    for name, labels in shown.items():
        # what has not happened yet has no sample, and so shows no label
        assert labels in (set(), described[name]), f"{name}: {labels}, but docs/metrics.md says {described[name]}"


def test_dashboards_are_what_their_sources_make():
    assert differing() == []
    for dashboard in DASHBOARDS:
        numbers = [panel["id"] for panel in dashboard.render()["panels"]]
        assert len(set(numbers)) == len(numbers)


def test_panels_lie_beside_each_other():
    for dashboard in DASHBOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in dashboard.render()["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert place["x"] + place["w"] <= 24
            assert cells.isdisjoint(taken), f"{dashboard.title}: {panel['title']} lies on another panel"
            taken |= cells


def alerts() -> dict[str, str]:
    """Every alert and its runbook."""
    text = "".join(path.read_text() for path in RULES)
    blocks = re.split(r"^ +- alert: ", text, flags=re.MULTILINE)[1:]
    return {block.split()[0]: re.search(r"runbook_url: RUNBOOKS/(\S+)", block).group(1) for block in blocks}


def test_every_alert_has_a_runbook_that_names_it_and_a_unit_test():
    tested = "".join(path.read_text() for path in (Path(__file__).parent / "rules").glob("*.yaml"))
    for alert, runbook in alerts().items():
        assert f"`{alert}`" in (ROOT / "docs" / "runbooks" / runbook).read_text()
        fires = re.search(rf"alertname: {alert}\n +exp_alerts:\n +- exp_labels", tested)
        assert fires, f"no test has {alert} fire"
    pages = {path.name for path in (ROOT / "docs" / "runbooks").glob("*.md")} - {"README.md", "a-customer-says.md"}
    assert pages == set(alerts().values())


def test_the_guide_to_failures_leads_from_every_alert_to_its_runbook():
    guide = (ROOT / "docs" / "failures.md").read_text()
    index = (ROOT / "docs" / "runbooks" / "README.md").read_text()
    rows = [row for row in guide.splitlines() if row.startswith("| ")]
    for alert, runbook in alerts().items():
        assert any(f"`{alert}`" in row and f"(runbooks/{runbook})" in row for row in rows), f"{alert}: {runbook}"
        assert re.search(rf"^\| `{alert}` \| \[[^]]+\]\({runbook}\) \|$", index, re.MULTILINE), alert
    named = set(re.findall(r"`(Tidegate[A-Z]\w+)`", guide + index))
    assert named == alerts().keys()


def test_promtool_agrees_with_the_rules():
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    tests = sorted((Path(__file__).parent / "rules").glob("*.yaml"))
    for command in (["check", "rules", "--lint=all", "--lint-fatal", *RULES], ["test", "rules", *tests]):
        done = subprocess.run([promtool, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_dashboard_names_only_metrics_that_are_documented():
    known = documented().keys() | {"ALERTS", "up"}
    for dashboard in DASHBOARDS:
        text = json.dumps(dashboard.render())
        for name in set(re.findall(r"\b((?:tidegate|rate_limit|process)_\w+)", text)):
            assert {name, re.sub(r"_(bucket|count|sum)$", "", name)} & known, f"{dashboard.title}: {name}"


def test_the_scenario_is_scraped_whole(scenario):
    wait_for(lambda: all(value == 1 for _, value in scenario.prometheus.values("up")), 10, "every target to be up")
