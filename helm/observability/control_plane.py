"""The control plane, and how its revisions reach the nodes."""

from helm.observability.overview import IN, RATE, REGION
from helm.observability.panels import Dashboard, Panel, Query, Sql, Step

REQUESTS = "tidegate_control_plane_requests_total"
PUSH = f"sum by (le) (rate(tidegate_control_plane_push_seconds_bucket[{RATE}]))"
TIMES = "tidegate_control_plane_request_duration_seconds_bucket"

LAST_CHANGES = """
    SELECT number AS revision, created_at, author, reason,
           coalesce(rollouts.state, 'at once') AS roll_out, rollouts.outcome
    FROM revisions LEFT JOIN rollouts USING (number)
    WHERE $__timeFilter(created_at) ORDER BY number DESC LIMIT 30
"""

CONTROL_PLANE = Dashboard(
    uid="tidegate-control-plane",
    title="Tidegate: control plane and roll-outs",
    about="The admin API, the jobs, and the way of a revision to every node.",
    variables=(REGION,),
    rows={
        "Revisions": (
            Panel("Revision in force", (
                Query("max(tidegate_control_plane_revision)", "newest"),
                Query(f"min by (region) (tidegate_config_revision{{{IN}}})", "oldest in {{region}}")),
                "All lines meet when every node has the newest revision."),
            Panel("Time to reach a node", (
                Query(f"histogram_quantile(0.99, {PUSH})", "p99"),
                Query(f"histogram_quantile(0.5, {PUSH})", "p50")),
                "From the write to the node's ACK.", "s", steps=(Step(1, "orange"),)),
            Panel("ACKs and NACKs", (
                Query(f"sum(rate(tidegate_control_plane_acks_total[{RATE}]))", "applied"),
                Query(f"sum(rate(tidegate_control_plane_nacks_total[{RATE}]))", "refused")),
                "A refused revision is a bug or a forgery: nodes stay on the one before.", "ops"),
            Panel("Nodes connected", (
                Query("sum(tidegate_control_plane_connected_nodes)", "streams"),
                Query(f"count by (region) (tidegate_control_plane_connected{{{IN}}} == 1)", "nodes {{region}}")),
                "Streams that replicas hold open, and nodes that say so."),
            Panel("Silence of the control plane", (
                Query(f"max by (region) (tidegate_control_plane_silence_seconds{{{IN}}})", "{{region}}"),),
                "Heartbeats come every few seconds.", "s", steps=(Step(30, "orange"), Step(120, "red"))),
            Panel("Refusing nodes", (
                Query(f"sum by (region) (tidegate_config_refused_revision{{{IN}}} > bool 0)", "{{region}}"),),
                "Nodes that refused a revision and have not applied a later one.", steps=(Step(1, "red"),)),
        ),
        "Roll-outs": (
            Panel("Nodes by revision", (
                Query(f'count_values("revision", tidegate_config_revision{{{IN}}})', "revision {{revision}}"),),
                "During a roll-out some nodes are ahead of the others; otherwise there is one line.", width=10,
                stacked=True),
            Panel("Last changes", (Sql(LAST_CHANGES),),
                  "Who, why, and how they reached the nodes: at once, or by a roll-out and how that ended.",
                  kind="table", width=14),
        ),
        "Admin API": (
            Panel("Requests", (
                Query(f"sum by (status) (rate({REQUESTS}[{RATE}]))", "{{status}}"),),
                "By status.", "reqps", stacked=True),
            Panel("Time to answer, p99", (
                Query(f"histogram_quantile(0.99, sum by (le, route) (rate({TIMES}[{RATE}])))", "{{route}}"),),
                "By route.", "s"),
            Panel("5xx", (
                Query(f'sum(rate({REQUESTS}{{status=~"5.."}}[{RATE}])) / sum(rate({REQUESTS}[{RATE}])) or vector(0)'),),
                "As a share of requests; 503 while Postgres is away.", "percentunit",
                steps=(Step(0.01, "orange"), Step(0.05, "red"))),
        ),
        "Jobs": (
            Panel("Leader", (Query("sum(tidegate_control_plane_leader)"),), "One replica runs the jobs.", kind="stat",
                  width=4, steps=(Step(2, "red"),)),
            Panel("Runs", (
                Query("sum by (name, outcome) (increase(tidegate_control_plane_job_runs_total[1h]))",
                      "{{name}} {{outcome}}"),),
                "In the last hour, by outcome.", width=10),
            Panel("Duration, p99", (
                Query("histogram_quantile(0.99, sum by (le, name) "
                      "(rate(tidegate_control_plane_job_duration_seconds_bucket[1h])))", "{{name}}"),),
                "Of the last hour.", "s", width=10),
        ),
    },
)  # fmt: skip
