"""The dashboard to look at first: are decisions quick, how many are denied, is the store well."""

from helm.observability.panels import Dashboard, Panel, Query, Step, Variable

REGION = Variable("region", "Region", "label_values(tidegate_node_info, region)")
IN = 'region=~"$region"'
RATE = "$__rate_interval"
DECIDED = f'rate_limit_checks_total{{{IN}, result=~"allowed|denied"}}'


def quantile(of: float) -> str:
    """Seconds within which this part of decisions is made, by region."""
    buckets = f"rate(rate_limit_check_duration_seconds_bucket{{{IN}}}[{RATE}])"
    return f"histogram_quantile({of}, sum by (region, le) ({buckets}))"


def share(counter: str) -> str:
    """A counter as a share of all decisions, by region."""
    return f"sum by (region) (rate({counter}[{RATE}])) / (sum by (region) (rate({DECIDED}[{RATE}])) > 0)"


LATENCY = (Step(0.001, "orange"), Step(0.005, "red"))
DENIALS = (Step(0.05, "orange"), Step(0.20, "red"))
DENIED = f'rate_limit_checks_total{{{IN}, result="denied"}}'
SHADOW = f"rate_limit_shadow_denied_total{{{IN}}}"

OVERVIEW = Dashboard(
    uid="tidegate-overview",
    title="Tidegate: overview",
    about="Decisions, denials and the store, by region. Goals: p99 below 1 ms, 1% to 5% denied, never above 20%.",
    variables=(REGION,),
    rows={
        "Now": (
            Panel("Decisions", (Query(f"sum(rate({DECIDED}[{RATE}]))"),), "All regions chosen.", "reqps", "stat", 4, 4),
            Panel("p99", (Query(quantile(0.99), "{{region}}"),), "Goal: 1 ms.", "s", "stat", 4, 4, LATENCY),
            Panel("Denied", (Query(share(DENIED), "{{region}}"),), "1% to 5% is usual, above 20% something is wrong.",
                  "percentunit", "stat", 4, 4, DENIALS),
            Panel("Decided without the store", (Query(share(f"rate_limit_degraded_total{{{IN}}}"), "{{region}}"),),
                  "By each limit's on_store_failure.", "percentunit", "stat", 4, 4,
                  (Step(0.0001, "orange"), Step(0.01, "red"))),
            Panel("Nodes", (Query(f"count by (region) (tidegate_node_info{{{IN}}})", "{{region}}"),),
                  "Nodes that are scraped.", "short", "stat", 4, 4),
            Panel("Firing", (Query('count(ALERTS{alertname=~"Tidegate.*", alertstate="firing"}) or vector(0)'),),
                  "Alerts of the rules that come with the charts.", "short", "stat", 4, 4, (Step(1, "red"),)),
        ),
        "Decisions": (
            Panel("Time to decide", (Query(quantile(0.50), "p50 {{region}}"), Query(quantile(0.95), "p95 {{region}}"),
                  Query(quantile(0.99), "p99 {{region}}")),
                  "From the understood request to its decision; the goal is a p99 below 1 ms.", "s", steps=LATENCY),
            Panel("Decisions by result",
                  (Query(f"sum by (result) (rate(rate_limit_checks_total{{{IN}}}[{RATE}]))", "{{result}}"),),
                  "Refused: turned away before any limit (keys, suspended clients).", "reqps", stacked=True),
            Panel("Denial rate", (Query(share(DENIED), "{{region}}"),), "1% to 5% is usual; 20% alarms.", "percentunit",
                  steps=DENIALS),
            Panel("Denials by limit",
                  (Query(f"topk(10, sum by (policy) (rate(rate_limit_blocked_total{{{IN}}}[{RATE}])))", "{{policy}}"),),
                  "The ten limits that deny most.", "reqps"),
            Panel("Would be denied: limits in shadow", (Query(share(SHADOW), "{{region}}"),),
                  "What a limit in shadow would deny, as a share of decisions: false positives show here before the "
                  "limit is enforced.", "percentunit", steps=DENIALS),
            Panel("Refused",
                  (Query(f"sum by (reason) (rate(rate_limit_refused_total{{{IN}}}[{RATE}]))", "{{reason}}"),),
                  "Missing or unknown keys, suspended clients.", "reqps"),
        ),
        "Store": (
            Panel("Operations", (
                Query(f"max by (region) (rate(tidegate_store_commands_total{{{IN}}}[{RATE}]))", "commands {{region}}"),
                Query(f"sum by (region) (rate(tidegate_store_calls_total{{{IN}}}[{RATE}]))", "calls {{region}}")),
                "Commands that the servers processed, those inside scripts included; script calls that nodes sent.",
                "ops"),
            Panel("Decisions a script call", (Query(
                f"sum by (region) (rate(tidegate_store_decisions_total{{{IN}}}[{RATE}])) "
                f"/ (sum by (region) (rate(tidegate_store_calls_total{{{IN}}}[{RATE}])) > 0)", "{{region}}"),),
                "Decisions that arrive together share one call."),
            Panel("Keys", (Query(f"max by (region) (tidegate_store_keys{{{IN}}})", "{{region}}"),),
                  "One a limit and subject in use."),
            Panel("Memory", (
                Query(f"max by (region) (tidegate_store_memory_bytes{{{IN}}})", "used {{region}}"),
                Query(f"max by (region) (tidegate_store_memory_limit_bytes{{{IN}}})", "limit {{region}}")),
                "Above 85% anonymous addresses count by network; a full store denies what it cannot count.", "bytes"),
            Panel("Errors", (
                Query(f"sum by (reason) (rate(rate_limit_redis_errors_total{{{IN}}}[{RATE}])) > 0", "{{reason}}"),),
                "Decisions that the store did not answer, by reason.", "reqps"),
            Panel("Usable, circuits opened", (
                Query(f"min by (region) (tidegate_store_usable{{{IN}}})", "usable {{region}}"),
                Query(f"sum by (region) (increase(tidegate_store_circuit_opened_total{{{IN}}}[{RATE}]))",
                      "circuits opened {{region}}")), "1: every node can use its store."),
        ),
        "Nodes": (
            Panel("CPU", (Query(f"rate(process_cpu_seconds_total{{{IN}}}[{RATE}]) and on (instance) tidegate_node_info",
                  "{{instance}}"),), "A node is one process: 1 is all it can use.", "percentunit",
                  steps=(Step(0.7, "orange"), Step(0.9, "red"))),
            Panel("Memory", (Query(f"process_resident_memory_bytes{{{IN}}} and on (instance) tidegate_node_info",
                  "{{instance}}"),), "Resident.", "bytes"),
            Panel("Denials from memory", (
                Query(f"sum by (region) (rate(rate_limit_remembered_total{{{IN}}}[{RATE}]))", "{{region}}"),),
                "Repeated without asking the store.", "reqps"),
        ),
    },
)  # fmt: skip
