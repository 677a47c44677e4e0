"""The table of resources: every command for daily work, its path in the admin API, its options and its columns."""

from typing import get_args

from tidegate.admin.shapes import Field, Resource, Verb
from tidegate.contract.limits import Algorithm, Calendar, Mode, OnStoreFailure

PREFIX = Field("prefix", "Only names that begin like this.")
SINCE = Field("since", "Not before this instant, or this long ago: 24h.", "ago")
UNTIL = Field("until", "Before this instant, or this long ago.", "ago")
EXPIRES = Field("expires_at", "An instant, or in how long: 30m, 12h, 7d.", "ahead")
OVERLAP = Field("overlap_s", "For how many seconds the old secret works too.", "int")
MODES = ("enforce", "shadow")
STATUSES = ("active", "suspended")
ROLES = ("viewer", "operator", "admin", "gateway")

CLIENT_FIELDS = (
    Field("plan", "Its plan."),
    Field("status", "Suspended: every request is refused.", choices=STATUSES),
    Field("attributes", "NAME=VALUE, repeatable; NAME= takes it away.", "pairs", option="attribute"),
    Field("external_id", "Its name in another system, such as billing."),
)
FIGURES = (Field("limit", "Units a window.", "int", required=True), Field("burst", "What a bucket holds.", "int"))
LIMIT_FIELDS = (
    Field("limit", "Units a window.", "int"),
    Field("window_s", "Seconds.", "float", instead_of=("window", "anchor")),
    Field("window", "A calendar window in UTC.", instead_of=("window_s",), choices=get_args(Calendar)),
    Field("anchor", "An instant at which a calendar window begins."),
    Field("algorithm", "How it counts.", choices=get_args(Algorithm)),
    Field("burst", "What a bucket holds.", "int"),
    Field("scope", "Whose requests are counted together: client, ip, client+endpoint, ..."),
    Field("match.endpoints", "Only these, separated by commas; '' is all.", "list"),
    Field("match.methods", "Only these, separated by commas; '' is all.", "list"),
    Field("match.attributes", "Only requests with NAME=VALUE, repeatable.", "pairs", option="attribute"),
    Field("mode", "How regions share it.", choices=get_args(Mode)),
    Field("on_store_failure", "What holds without the store.", choices=get_args(OnStoreFailure)),
    Field("shadow", "Counted and reported, never enforced.", "bool"),
    Field("priority", "Outside plans: a higher one is looked at first.", "int"),
    Field("adaptive", "The adaptive policy that it follows."),
    Field("headline", "Shown in X-RateLimit-*.", "bool"),
    Field("visible", "Whether end clients see it.", "bool"),
)  # fmt: skip
KEY = "/v1/clients/{client}/keys/{key_id}"
LIMITS = "/v1[/plans/{plan}]/limits"
ENFORCEMENT = "/v1/enforcement[[/{plan}]/{limit}]"

RESOURCES = (
    Resource("clients", "Callers: their plan, status and attributes.", (
        "client", "plan", "status", "external_id", "attributes", "created_at",
    ), (
        Verb("list", "List clients.", "list", "/v1/clients", (
            PREFIX, Field("plan", "Only those on this plan."), Field("status", "Only these.", choices=STATUSES),
            Field("external_id", "Only the one with this name in another system."),
        )),
        Verb("show", "Show a client.", "show", "/v1/clients/{client}"),
        Verb("create", "Add a client.", "create", "/v1/clients/{client}", CLIENT_FIELDS),
        Verb("set", "Change a client; what is not named stays.", "set", "/v1/clients/{client}", CLIENT_FIELDS),
        Verb("delete", "Remove a client with its keys and overrides.", "delete", "/v1/clients/{client}"),
        Verb("reset", "Forget what a client used, in every region.", "post", "/v1/clients/{client}/reset"),
        Verb("limits", "Show every limit in force, and what is left of it in each region now.", "list",
             "/v1/clients/{client}/limits",
             (), ("name", "plan", "source", "scope", "window_s", "window", "shadow", "region", "limit", "used",
                  "remaining", "reset_s", "reason"), "limits", per="regions", whole=True),
    )),
    Resource("keys", "Clients' API keys. A secret is shown once, when it is made.", (
        "key_id", "client", "name", "prefix", "created_at", "expires_at", "last_used",
    ), (
        Verb("list", "List a client's keys.", "list", "/v1/clients/{client}/keys", (
            Field("name", "Only those of this name."),
        )),
        Verb("find", "Find keys by how their secret begins.", "list", "/v1/keys", (
            Field("prefix", "3 to 16 characters.", required=True),
        )),
        Verb("show", "Show a key.", "show", KEY),
        Verb("create", "Give a client a key.", "post", "/v1/clients/{client}/keys", (
            Field("name", "A name for it."), EXPIRES,
        )),
        Verb("rotate", "Make a key in place of this one.", "post", f"{KEY}/rotate", (OVERLAP,)),
        Verb("revoke", "Revoke a key.", "delete", KEY),
    )),
    Resource("plans", "Plans. Their limits are set by `limits --plan`.", ("plan", "priority", "limits"), (
        Verb("list", "List plans.", "list", "/v1/plans", (PREFIX,)),
        Verb("show", "Show a plan with its limits.", "show", "/v1/plans/{plan}"),
        Verb("create", "Add a plan without limits.", "create", "/v1/plans/{plan}", (
            Field("priority", "A higher one matters more when load must be shed.", "int"),
        )),
        Verb("set", "Change a plan; its limits stay.", "set", "/v1/plans/{plan}", (
            Field("priority", "A higher one matters more when load must be shed.", "int"),
        )),
        Verb("delete", "Remove a plan that no client is on.", "delete", "/v1/plans/{plan}"),
    )),
    Resource("limits", "Limits of a plan (--plan), or outside plans.", (
        "name", "scope", "algorithm", "limit", "window_s", "window", "burst", "mode", "shadow", "match",
    ), (
        Verb("list", "List limits.", "list", LIMITS, (PREFIX,)),
        Verb("show", "Show a limit.", "show", f"{LIMITS}/{{limit}}"),
        Verb("create", "Add a limit.", "create", f"{LIMITS}/{{limit}}", LIMIT_FIELDS),
        Verb("set", "Change a limit; what is not named stays.", "set", f"{LIMITS}/{{limit}}", LIMIT_FIELDS),
        Verb("delete", "Remove a limit.", "delete", f"{LIMITS}/{{limit}}"),
    )),
    Resource("overrides", "A client's own figures for limits of its plan.", (
        "limit_name", "limit", "burst", "expires_at", "then",
    ), (
        Verb("list", "List a client's overrides.", "list", "/v1/clients/{client}/overrides", (PREFIX,)),
        Verb("set", "Give a client its own figures, in place of those before.", "replace",
             "/v1/clients/{client}/overrides/{limit_name}", (*FIGURES, EXPIRES)),
        Verb("delete", "Go back to the plan's figures.", "delete", "/v1/clients/{client}/overrides/{limit_name}"),
    )),
    Resource("blocks", "Who is refused at once, everywhere.", (
        "block", "client", "key_id", "ip", "endpoint", "reason_class", "reason", "expires_at", "created_at",
    ), (
        Verb("list", "List blocks.", "list", "/v1/blocks", (
            PREFIX, Field("client", "Only those of this client."), Field("key_id", "Only those of this key."),
            Field("ip", "Only those that hold this address."), Field("endpoint", "Only those of this endpoint."),
        )),
        Verb("show", "Show a block.", "show", "/v1/blocks/{block}"),
        Verb("create", "Refuse a client, a key, an address or an endpoint.", "post", "/v1/blocks", (
            Field("block", "A name for it; else it gets one.", option="name"),
            Field("client", "Whom: a client."), Field("key_id", "Whom: a key."),
            Field("ip", "Whom: an address, or a network as 203.0.113.0/24."), Field("endpoint", "What: an endpoint."),
            Field("reason", "Why, for admins.", option="note"),
            Field("reason_class", "Why, for callers.", choices=("abuse", "security", "billing", "legal", "other")),
            EXPIRES,
        )),
        Verb("delete", "Lift a block.", "delete", "/v1/blocks/{block}"),
    )),
    Resource("enforcement", "All limits, or one, in shadow (counted, stopping nobody) or enforced.", (
        "target", "mode", "expires_at", "reason", "set_at",
    ), (
        Verb("list", "List enforcement overrides.", "list", "/v1/enforcement", (
            PREFIX, Field("mode", "Only these.", choices=MODES),
        )),
        Verb("set", "Override all limits, or with --limit one (of --plan, or outside plans).", "replace", ENFORCEMENT, (
            Field("mode", "What limits do.", choices=MODES, required=True), EXPIRES,
            Field("reason", "Why, beside the override.", option="note"),
        )),
        Verb("delete", "End the override of all limits, or of one.", "delete", ENFORCEMENT),
    )),
    Resource("rollouts", "Revisions that do not go to all nodes at once.", (
        "revision", "state", "region", "node", "base_revision", "started_at", "ended_at", "outcome",
    ), (
        Verb("list", "List roll-outs, newest first.", "list", "/v1/rollouts", (
            Field("state", "Only these.", choices=("node", "region", "done", "rolled_back")),
        )),
        Verb("show", "Show a roll-out and what it holds back.", "show", "/v1/rollouts/{revision}"),
        Verb("release", "To every node now, whatever nodes report.", "post", "/v1/rollouts/{revision}/release"),
        Verb("rollback", "Stop it, and bring back what was before.", "post", "/v1/rollouts/{revision}/rollback"),
        Verb("policy", "Show how changes reach nodes.", "show", "/v1/rollouts/policy"),
        Verb("set-policy", "Change how changes reach nodes; what is not named stays.", "set", "/v1/rollouts/policy", (
            Field("mode", "Canary: one node, its region, then all.", choices=("immediate", "canary")),
            Field("region", "Where to begin."), Field("node", "The node to begin with."),
            Field("node_pause_s", "How long one node has it alone.", "float"),
            Field("region_pause_s", "How long one region has it alone.", "float"),
            Field("max_denial_rise", "Stop when the part denied rises by more.", "float"),
            Field("max_degraded_rise", "Stop when the part decided without the store rises by more.", "float"),
            Field("min_decisions", "Fewer decisions than this are no evidence.", "int"),
        )),
    )),
    Resource("revisions", "The history of the configuration.", ("revision", "author", "reason", "created_at"), (
        Verb("list", "List revisions, newest first.", "list", "/v1/revisions", (
            Field("author", "Only those of this author."), SINCE, UNTIL,
        )),
        Verb("show", "Show a revision, and which nodes have it.", "show", "/v1/revisions/{revision}"),
        Verb("diff", "Show what a revision changed, or with --to what differs from it to another.", "list",
             "/v1/revisions/{revision}/diff", (Field("to", "Another revision.", "int"),),
             ("kind", "id", "before", "after"), "changes"),
        Verb("rollback", "Make the configuration what it was at this revision.", "post",
             "/v1/revisions/{revision}/rollback", (
            Field("dry_run", "Only show what would change.", "bool", in_query=True,
                  brings=(("allow_deletes", str(10**9)),)),
            Field("allow_deletes", "How many deletions are allowed, if more than 10.", "int", in_query=True),
        )),
    )),
    Resource("audit", "Every write: who, what, why, when, from where.", (
        "id", "at", "author", "action", "resource", "name", "revision", "reason", "address",
    ), (
        Verb("list", "List writes, newest first.", "list", "/v1/audit", (
            Field("author", "Only those of this author."), Field("action", "Only these: create, update, delete, ..."),
            Field("resource", "Only of this kind: client, plan, ..."), Field("name", "Only of this name."),
            Field("revision", "Only of this revision.", "int"), Field("request_id", "Only of this request."),
            SINCE, UNTIL,
        )),
        Verb("show", "Show a write, with what was before and after.", "show", "/v1/audit/{id}"),
    )),
    Resource("tokens", "Tokens of admins and gateways. A secret is shown once, when it is made.", (
        "token_id", "name", "role", "plans", "client_prefixes",
        "dialect", "prefix", "created_at", "expires_at", "last_used",
    ), (
        Verb("list", "List tokens.", "list", "/v1/tokens", (Field("role", "Only these.", choices=ROLES),)),
        Verb("show", "Show a token.", "show", "/v1/tokens/{token_id}"),
        Verb("create", "Issue a token.", "post", "/v1/tokens", (
            Field("name", "Its name.", required=True), Field("role", "What it may.", choices=ROLES, required=True),
            Field("plans", "Of a viewer or operator: for clients on these plans alone.", "list"),
            Field("client_prefixes", "Of a viewer or operator: for clients whose names begin like this.", "list"),
            Field("dialect", "What a gateway speaks.", choices=("envoy", "nginx", "traefik", "caddy", "haproxy")),
            EXPIRES,
        )),
        Verb("rotate", "Give a token a new secret.", "post", "/v1/tokens/{token_id}/rotate", (OVERLAP,)),
        Verb("revoke", "Revoke a token.", "delete", "/v1/tokens/{token_id}"),
    )),
    Resource("usage", "What was allowed and denied, by the hour or the day.", (
        "hour", "day", "client", "plan", "limit", "endpoint", "region", "key_id",
        "allowed", "denied", "shadow_denied", "cost", "denied_cost",
    ), (
        Verb("list", "List usage.", "list", "/v1/usage", (
            Field("group_by", "Any of hour, day, client, plan, limit, endpoint, region, key, separated by commas."),
            Field("from", "From this instant on, or this long ago: 24h.", "ago"),
            Field("to", "Before this instant, or this long ago.", "ago"),
            Field("client", "Only of this client."), Field("plan", "Only of this plan."),
            Field("of_limit", "Only of this limit.", option="limit"), Field("endpoint", "Only of this endpoint."),
            Field("region", "Only of this region."), Field("key", "Only of this key."),
            Field("live", "Let regions send what waits there first.", "bool"),
        )),
        Verb("busiest", "List the clients that did most.", "list", "/v1/usage/busiest", (
            Field("by", "Most of what.", choices=("allowed", "denied", "cost")),
            Field("count", "How many.", "int"), Field("from", "From this instant on, or this long ago.", "ago"),
        ), whole=True),
    )),
    Resource("nodes", "Nodes and agents: what each has applied, or refused.", (
        "node", "region", "role", "version", "connected", "last_seen", "applied_revision", "behind", "held_back",
        "refused_revision", "refused_reason",
    ), (
        Verb("list", "List nodes.", "list", "/v1/nodes", (
            Field("region", "Only those of this region."),
            Field("connected", "Only those with an open stream, or with none.", "bool"),
        )),
    )),
    Resource("regions", "Regions, and where peers reach them.", ("region", "peer_url", "previous_expires_at"), (
        Verb("list", "List regions.", "list", "/v1/regions", (PREFIX,)),
        Verb("show", "Show a region.", "show", "/v1/regions/{region}"),
        Verb("create", "Add a region.", "create", "/v1/regions/{region}", (
            Field("peer_url", "Where other regions reach it."),
        )),
        Verb("set", "Change a region.", "set", "/v1/regions/{region}", (
            Field("peer_url", "Where other regions reach it."),
        )),
        Verb("credential", "Issue a credential, shown once.", "post", "/v1/regions/{region}/credentials", (OVERLAP,)),
        Verb("delete", "Remove a region.", "delete", "/v1/regions/{region}"),
    )),
    Resource("reporters", "Who reports the load of backends.", ("reporter", "backends", "prefix", "created_at"), (
        Verb("list", "List reporters.", "list", "/v1/reporters", (PREFIX,)),
        Verb("show", "Show a reporter.", "show", "/v1/reporters/{reporter}"),
        Verb("create", "Add a reporter; its credential is shown once.", "post", "/v1/reporters", (
            Field("reporter", "Its name.", option="name", required=True),
            Field("backends", "Whose load it may report, separated by commas.", "list", required=True),
        )),
        Verb("credential", "Issue a credential, shown once.", "post", "/v1/reporters/{reporter}/credentials", (
            OVERLAP,
        )),
        Verb("delete", "Remove a reporter, and its credentials with it.", "delete", "/v1/reporters/{reporter}"),
    )),
    Resource("backends", "What endpoints lead to, and how much of its traffic is admitted.", (
        "backend", "capacity", "adaptive",
    ), (
        Verb("list", "List backends.", "list", "/v1/backends", (PREFIX,)),
        Verb("show", "Show a backend, and why its factor is what it is in each region.", "show",
             "/v1/backends/{backend}"),
        Verb("set-factor", "Admit this part of its traffic, for a time.", "replace", "/v1/backends/{backend}/factor", (
            Field("factor", "From 0 to 1.", "float", required=True), EXPIRES._replace(required=True),
            Field("reason", "Why, beside the factor.", option="note"),
        )),
        Verb("clear-factor", "Go back to what the load says.", "delete", "/v1/backends/{backend}/factor"),
    )),
    Resource("jobs", "What the control plane runs on a schedule.", (
        "job", "every_s", "running", "last_outcome", "last_detail", "last_finished_at", "next_run_at", "failures",
    ), (
        Verb("list", "List jobs with their last run.", "list", "/v1/jobs", whole=True),
        Verb("show", "Show a job.", "show", "/v1/jobs/{job}"),
        Verb("run", "Run a job now.", "post", "/v1/jobs/{job}/run"),
    )),
)  # fmt: skip
"""In the order in which ``tidegate --help`` lists them."""
