"""One client, from the control plane's Postgres: what it asked for, what it got, by limit, endpoint, region and key."""

from helm.observability.panels import Dashboard, Panel, Sql, Variable

CLIENT = Variable("client", "Client", "SELECT client FROM clients ORDER BY client", of_postgres=True, multi=False)
THIS = "client = ${client:sqlstring}"
REQUESTS = "limit_name = ''"  # a request as a whole; the other rows say how often each limit took part
BOTH = "sum(allowed) AS allowed, sum(denied) AS denied"
SHARE = "sum(denied)::float8 / nullif(sum(allowed + denied), 0)"


def usage(what: str, *where: str, then: str = "") -> str:
    """A query of the hours in the time that the person chose. Nothing in it comes from outside this file."""
    conditions = " AND ".join(["$__timeFilter(hour)", *where])
    return f"SELECT {what} FROM usage_hourly WHERE {conditions} {then}".strip()  # noqa: S608


CLIENTS = Dashboard(
    uid="tidegate-clients",
    title="Tidegate: one client",
    about="From the usage that nodes ship to the control plane; a request is here some seconds after its decision.",
    variables=(CLIENT,),
    since="now-7d",
    rows={
        "Client": (
            Panel("Plan", (Sql(f"SELECT plan, status, external_id FROM clients WHERE {THIS}"),),  # noqa: S608
                  "As configured now.", kind="table", width=8, height=4),
            Panel("Allowed", (Sql(usage("sum(allowed) AS allowed", THIS, REQUESTS)),), "Requests in the time chosen.",
                  kind="stat", width=4, height=4),
            Panel("Denied", (Sql(usage("sum(denied) AS denied", THIS, REQUESTS)),), "Requests in the time chosen.",
                  kind="stat", width=4, height=4),
            Panel("Units used", (Sql(usage("sum(cost) AS units", THIS, REQUESTS)),), "Allowed requests by their cost.",
                  kind="stat", width=4, height=4),
            Panel("Denial rate", (Sql(usage(f"{SHARE} AS denied", THIS, REQUESTS)),), "Of all its requests.",
                  "percentunit", "stat", 4, 4),
        ),
        "Over time": (
            Panel("Requests an hour",
                  (Sql(usage(f"hour AS time, {BOTH}", THIS, REQUESTS, then="GROUP BY hour ORDER BY hour"),
                       "time_series"),), "Allowed and denied.", width=12, stacked=True),
            Panel("Denials an hour by limit",
                  (Sql(usage("hour AS time, limit_name AS metric, sum(denied) AS denied", THIS, "limit_name <> ''",
                             then="GROUP BY hour, limit_name ORDER BY hour"), "time_series"),),
                  "Which limit objected.", width=12),
        ),
        "Where": (
            Panel("By endpoint",
                  (Sql(usage(f"endpoint, {BOTH}, sum(cost) AS units", THIS, REQUESTS,
                             then="GROUP BY endpoint ORDER BY 2 DESC LIMIT 20")),),
                  "The twenty it uses most.", kind="table"),
            Panel("By region",
                  (Sql(usage(f"region, {BOTH}", THIS, REQUESTS, then="GROUP BY region ORDER BY 2 DESC")),),
                  "Where it was served.", kind="table"),
            Panel("By key",
                  (Sql(usage(f"key_id, {BOTH}", THIS, REQUESTS, then="GROUP BY key_id ORDER BY 2 DESC LIMIT 20")),),
                  "By the id of the key; secrets are nowhere.", kind="table"),
        ),
        "Everybody": (
            Panel("Busiest clients",
                  (Sql(usage(f"client, {BOTH}", REQUESTS,
                             then="GROUP BY client ORDER BY sum(allowed + denied) DESC LIMIT 20")),),
                  "In the time chosen.", kind="table", width=12),
            Panel("Most denied clients",
                  (Sql(usage(f"client, sum(denied) AS denied, {SHARE} AS share", REQUESTS,
                             then="GROUP BY client HAVING sum(denied) > 0 ORDER BY 2 DESC LIMIT 20")),),
                  "In the time chosen.", kind="table", width=12),
        ),
    },
)  # fmt: skip
