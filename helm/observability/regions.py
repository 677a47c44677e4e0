"""Regions: what they tell each other, how late it comes, what it costs, and what was let through too much."""

from helm.observability.overview import IN, RATE, REGION
from helm.observability.panels import Dashboard, Panel, Query, Step


def by(labels: str, counter: str) -> str:
    """A counter's rate, summed by these labels."""
    return f"sum by ({labels}) (rate({counter}{{{IN}}}[{RATE}]))"


NOTHING = f"count by (region) (tidegate_node_info{{{IN}}}) * 0"

REGIONS = Dashboard(
    uid="tidegate-regions",
    title="Tidegate: regions and reconciliation",
    about="The exchange between regions: counts of shared limits, rights of strict ones, staleness, overshoot.",
    variables=(REGION,),
    rows={
        "Regions": (
            Panel("Decisions by region", (Query(by("region", "rate_limit_checks_total"), "{{region}}"),),
                  "Where the traffic is.", "reqps", stacked=True),
            Panel("Staleness", (
                Query(f"min by (region, peer) (tidegate_peer_staleness_seconds{{{IN}}})", "{{region}} of {{peer}}"),),
                "Age of what a region knows of a peer. Peers speak every second at least.", "s",
                steps=(Step(2, "orange"), Step(10, "red"))),
            Panel("Silent peers", (
                Query(f"max by (region, peer) (tidegate_peer_silent{{{IN}}})", "{{region}}: {{peer}}"),),
                "1: a peer is not heard, and its share of shared limits is kept for it.", steps=(Step(1, "red"),)),
            Panel("Live agents", (
                Query(f"max by (region) (tidegate_region_agents{{{IN}}})", "{{region}}"),),
                "0: the region neither tells nor hears, moves no rights, ships no usage.", steps=(Step(1, "green"),)),
            Panel("Shares proven", (
                Query(f"min by (region) (tidegate_shares_proven{{{IN}}})", "{{region}}"),),
                "0: a node denies strict limits until an agent vouches for the shares.", steps=(Step(1, "green"),)),
        ),
        "Overshoot": (
            Panel("Counters over their limit", (Query(by("region", "rate_limit_overshoots_total"), "{{region}}"),),
                  "Seen when counts of regions met. Shared limits may; docs/regions.md has the bound.", "ops"),
            Panel("Most units over a limit", (
                Query(f"max by (region) (rate_limit_overshoot_most_units{{{IN}}})", "{{region}}"),),
                "Since the nodes started."),
            Panel("Messages not taken", (Query(by("region, peer", "tidegate_peer_failures_total"),
                  "{{region}} to {{peer}}"),), "What a peer missed it is told when it is back.", "ops"),
        ),
        "Exchange": (
            Panel("Cells told", (Query(by("region", "tidegate_peer_cells_sent_total"), "{{region}}"),),
                  "Counters that changed, told to every peer.", "ops"),
            Panel("Bytes", (
                Query(by("region", "tidegate_peer_bytes_sent_total"), "sent {{region}}"),
                Query(by("region", "tidegate_peer_bytes_received_total"), "received {{region}}")),
                "Compressed.", "Bps"),
            Panel("Messages", (
                Query(by("region", "tidegate_peer_messages_sent_total"), "sent {{region}}"),
                Query(by("region", "tidegate_peer_messages_received_total"), "received {{region}}"),
                Query(by("region, reason", "tidegate_peer_messages_refused_total"), "refused {{region}}: {{reason}}")),
                "Refused: claimed to be a peer and was not, or was malformed.", "ops"),
        ),
        "Strict limits": (
            Panel("Rights asked for", (Query(by("region, peer", "tidegate_rights_asked_total"),
                  "{{region}} asks {{peer}}"),), "A region asks when its own share runs low.", "ops"),
            Panel("Rights moved", (Query(by("region, peer", "tidegate_rights_given_units_total"),
                  "{{region}} gives {{peer}}"),), "Units.", "ops"),
            Panel("Questions not answered", (
                Query(f"{by('region', 'tidegate_rights_failures_total')} or {NOTHING}", "{{region}}"),),
                "Nothing is admitted on a right that did not come.", "ops"),
        ),
    },
)  # fmt: skip
