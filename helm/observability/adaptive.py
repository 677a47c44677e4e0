"""Adaptive limits: how busy backends say they are, what nodes make of it, and who gives way."""

from helm.observability.overview import IN, RATE, REGION
from helm.observability.panels import Dashboard, Panel, Query, Step

ADAPTIVE = Dashboard(
    uid="tidegate-adaptive",
    title="Tidegate: adaptive limits",
    about="Load of protected backends, the share that is admitted, and what was shed by class.",
    variables=(REGION,),
    rows={
        "Backends": (
            Panel("Load", (
                Query(f"max by (region, backend) (tidegate_load{{{IN}}})", "{{backend}} {{region}}"),),
                "Smoothed; 1 means full.", "percentunit", steps=(Step(0.8, "orange"), Step(1, "red"))),
            Panel("Share that is admitted", (
                Query(f"min by (region, backend) (tidegate_load_factor{{{IN}}})", "{{backend}} {{region}}"),),
                "1: nothing is shed because of load.", "percentunit"),
            Panel("Share by class", (
                Query(f"min by (region, backend, priority) (tidegate_load_class_factor{{{IN}}})",
                      "{{backend}}, priority {{priority}}, {{region}}"),),
                "Plans of a higher priority give way last.", "percentunit"),
            Panel("Why", (
                Query(f"max by (region, backend, reason, signal) (tidegate_load_reason{{{IN}}})",
                      "{{backend}} {{region}}: {{reason}} by {{signal}}"),),
                "Why the share is what it is, and by which signal."),
            Panel("Unchanged for", (
                Query(f"time() - max by (region, backend) (tidegate_load_factor_since_timestamp_seconds{{{IN}}})",
                      "{{backend}} {{region}}"),), "How long the share has been what it is.", "s"),
        ),
        "Demand": (
            Panel("Units asked for", (
                Query(f"sum by (backend, priority) (rate(tidegate_load_offered_units_total{{{IN}}}[{RATE}]))",
                      "{{backend}}, priority {{priority}}"),), "At protected backends.", "reqps", stacked=True),
            Panel("Units shed", (
                Query(f"sum by (backend, priority) (rate(tidegate_load_shed_units_total{{{IN}}}[{RATE}]))",
                      "{{backend}}, priority {{priority}}"),), "Denied because of load.", "reqps", stacked=True),
            Panel("Shed, as a share", (
                Query(f"sum by (backend) (rate(tidegate_load_shed_units_total{{{IN}}}[{RATE}])) "
                      f"/ (sum by (backend) (rate(tidegate_load_offered_units_total{{{IN}}}[{RATE}])) > 0)",
                      "{{backend}}"),), "Of what was asked for.", "percentunit",
                steps=(Step(0.2, "orange"), Step(0.5, "red"))),
        ),
        "Signals": (
            Panel("Fresh reporters", (
                Query(f"max by (region, backend) (tidegate_load_reporters{{{IN}}})", "{{backend}} {{region}}"),),
                "Below a policy's min_reporters nothing is cut."),
            Panel("Reports", (
                Query(f"sum by (region) (rate(tidegate_load_reports_taken_total{{{IN}}}[{RATE}]))", "taken {{region}}"),
                Query(f"sum by (reason) (rate(tidegate_load_reports_refused_total{{{IN}}}[{RATE}]))",
                      "refused: {{reason}}")), "What is refused changes nothing.", "ops"),
            Panel("Deciding nodes", (
                Query(f"sum by (region) (tidegate_load_deciding{{{IN}}})", "{{region}}"),),
                "One a region; another takes over when it dies.", steps=(Step(2, "red"),)),
        ),
    },
)  # fmt: skip
