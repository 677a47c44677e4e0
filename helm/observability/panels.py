"""Panels and dashboards in Grafana's JSON model, as far as ours need it (schema 39: Grafana 10.4 and newer)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

COLUMNS = 24
SCHEMA_VERSION = 39
PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
POSTGRES = {"type": "grafana-postgresql-datasource", "uid": "${postgres}"}

Kind = Literal["timeseries", "stat", "table", "bargauge"]


@dataclass(frozen=True)
class Query:
    """A PromQL expression and how its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Sql:
    """A query of the control plane's Postgres; ``$__timeFilter`` and variables are Grafana's."""

    text: str
    form: Literal["table", "time_series"] = "table"


@dataclass(frozen=True)
class Step:
    """From this value on, this colour."""

    value: float
    colour: str


@dataclass(frozen=True)
class Panel:
    """One panel. ``width`` of 24 columns; ``steps`` colour the value and draw lines at the limits."""

    title: str
    queries: Sequence[Query | Sql]
    about: str
    unit: str = "short"
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 8
    steps: Sequence[Step] = ()
    stacked: bool = False

    def render(self, number: int, x: int, y: int) -> dict[str, Any]:
        """The panel's JSON at a place of the grid."""
        of_sql = isinstance(self.queries[0], Sql)
        source = POSTGRES if of_sql else PROMETHEUS
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.about,
            "datasource": source,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "targets": [self._target(query, chr(ord("A") + at)) for at, query in enumerate(self.queries)],
            "fieldConfig": {"defaults": self._defaults(), "overrides": []},
            "options": self._options(),
        }

    def _target(self, query: Query | Sql, name: str) -> dict[str, Any]:
        if isinstance(query, Sql):
            text = " ".join(query.text.split())
            return {"refId": name, "datasource": POSTGRES, "rawQuery": True, "rawSql": text, "format": query.form}
        target = {"refId": name, "datasource": PROMETHEUS, "expr": query.expr, "legendFormat": query.legend or "__auto"}
        return target | ({"instant": True, "format": "table"} if self.kind == "table" else {})

    def _defaults(self) -> dict[str, Any]:
        defaults: dict[str, Any] = {"unit": self.unit, "min": 0}
        if self.steps:
            steps = [{"value": None, "color": "green"}, *({"value": s.value, "color": s.colour} for s in self.steps)]
            defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        if self.kind == "timeseries":
            custom: dict[str, Any] = {"fillOpacity": 10, "showPoints": "never"}
            if self.steps:
                custom["thresholdsStyle"] = {"mode": "dashed"}
            if self.stacked:
                custom |= {"fillOpacity": 60, "stacking": {"mode": "normal", "group": "A"}}
            defaults["custom"] = custom
        return defaults

    def _options(self) -> dict[str, Any]:
        if self.kind == "timeseries":
            return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
        if self.kind == "table":
            return {"showHeader": True}
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background"}


@dataclass(frozen=True)
class Variable:
    """What the person at the screen chooses: values of a label, or rows of a query of Postgres."""

    name: str
    label: str
    query: str
    of_postgres: bool = False
    multi: bool = True

    def render(self) -> dict[str, Any]:
        """The variable's JSON."""
        return {
            "name": self.name,
            "label": self.label,
            "type": "query",
            "datasource": POSTGRES if self.of_postgres else PROMETHEUS,
            "query": self.query,
            "refresh": 2,
            "sort": 1,
            "multi": self.multi,
            "includeAll": self.multi,
            "allValue": ".*" if self.multi else None,
        }


@dataclass(frozen=True)
class Dashboard:
    """Rows of panels, each row with its heading."""

    uid: str
    title: str
    about: str
    rows: dict[str, Sequence[Panel]]
    variables: Sequence[Variable] = field(default_factory=tuple)
    since: str = "now-6h"

    def panels(self) -> list[Panel]:
        """All panels, in order."""
        return [panel for row in self.rows.values() for panel in row]

    def render(self) -> dict[str, Any]:
        """The dashboard's JSON."""
        placed: list[dict[str, Any]] = []
        y = 0
        for heading, panels in self.rows.items():
            place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
            placed.append({"id": len(placed) + 1, "type": "row", "title": heading, "gridPos": place, "panels": []})
            y += 1
            x = tallest = 0
            for panel in panels:
                if x + panel.width > COLUMNS:
                    x, y, tallest = 0, y + tallest, 0
                placed.append(panel.render(len(placed) + 1, x, y))
                x, tallest = x + panel.width, max(tallest, panel.height)
            y += tallest
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.about,
            "tags": ["tidegate"],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": True,
            "timezone": "utc",
            "refresh": "30s",
            "time": {"from": self.since, "to": "now"},
            "templating": {"list": [*self._sources(), *(variable.render() for variable in self.variables)]},
            "panels": placed,
        }

    def _sources(self) -> list[dict[str, Any]]:
        queries = [query for panel in self.panels() for query in panel.queries]
        sources = []
        if any(isinstance(query, Query) for query in queries):
            sources.append(("datasource", "Prometheus", PROMETHEUS["type"]))
        if any(isinstance(query, Sql) for query in queries):
            sources.append(("postgres", "Postgres", POSTGRES["type"]))
        return [{"name": name, "label": label, "type": "datasource", "query": kind} for name, label, kind in sources]
