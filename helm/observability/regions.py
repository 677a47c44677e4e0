"""Regions: what they tell each other, how late it comes, and what it costs."""

from helm.observability.overview import IN, RATE, REGION
from helm.observability.panels import Dashboard, Panel, Query, Step

REGIONS = Dashboard(
    uid="tidegate-regions",
    title="Tidegate: regions and reconciliation",
    about="The exchange of counts between regions: staleness, volume, refusals.",
    variables=(REGION,),
    rows={
        "Regions": (
            Panel("Decisions by region", (
                Query(f"sum by (region) (rate(rate_limit_checks_total{{{IN}}}[{RATE}]))", "{{region}}"),),
                "Where the traffic is.", "reqps", stacked=True),
            Panel("Staleness", (
                Query(f"min by (region, peer) (tidegate_peer_staleness_seconds{{{IN}}})", "{{region}} of {{peer}}"),),
                "Age of what a region last heard of a peer. Peers speak every 1 s at least.", "s",
                steps=(Step(2, "orange"), Step(10, "red"))),
            Panel("Batches not taken", (
                Query(f"sum by (region) (rate(tidegate_peer_failures_total{{{IN}}}[{RATE}]))", "{{region}}"),),
                "A peer that cannot be reached; it is told everything when it is back.", "ops"),
        ),
        "Exchange": (
            Panel("Cells told", (
                Query(f"sum by (region) (rate(tidegate_peer_cells_sent_total{{{IN}}}[{RATE}]))", "{{region}}"),),
                "Counters that changed, told to every peer.", "ops"),
            Panel("Bytes sent", (
                Query(f"sum by (region) (rate(tidegate_peer_bytes_sent_total{{{IN}}}[{RATE}]))", "{{region}}"),),
                "Compressed.", "Bps"),
            Panel("Messages refused", (
                Query(f"sum by (region, reason) (rate(tidegate_peer_messages_refused_total{{{IN}}}[{RATE}]))",
                      "{{region}} {{reason}}"),),
                "What claimed to be a peer and was not, or was malformed.", "ops"),
        ),
    },
)  # fmt: skip
