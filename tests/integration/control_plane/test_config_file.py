"""The file: what it says becomes so in one revision or not at all, and what was exported changes nothing."""

import asyncio
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
from pydantic import SecretStr

from control_plane.settings import Settings
from testing.control_plane import running
from testing.proxy import Proxy
from tests.integration.control_plane.conftest import ADMIN_TOKEN, DATABASE
from tidegate.stack.postgres import PostgresServer

SOON = (datetime.now(UTC) + timedelta(days=1)).isoformat()
FILE: dict[str, Any] = {
    "version": 1,
    "regions": {"us-east": {}, "eu-west": {"peer_url": "http://127.0.0.1:8102"}},
    "adaptive_policies": {"protect": {"type": "controller", "target": 0.75, "floor": 0.25}},
    "backends": {"users": {"capacity": "2000/s", "adaptive": "protect"}, "reports": {"capacity": "50/s"}},
    "endpoints": {
        "get-user": {"route": "GET /api/users/{id}", "backend": "users"},
        "export": {"route": "POST /api/exports", "backend": "reports", "cost": 20},
        "health": {"route": "GET /healthz", "exempt": True},
    },
    "plans": {
        "anonymous": {"limits": {"per-ip": {"limit": "60/min", "by": "ip"}}},
        "free": {
            "priority": 10,
            "limits": {
                "hourly": {"limit": "1000/h"},
                "burst": {"limit": "10/s", "burst": 20, "algorithm": "token_bucket"},
            },
        },
        "pro": {
            "priority": 50,
            "limits": {
                "monthly": {"limit": "5M/month", "mode": "strict", "shares": {"us-east": 0.6, "eu-west": 0.4}},
                "exports": {"limit": "100/day", "match": {"endpoints": ["export"]}, "shadow": True},
            },
        },
    },
    "limits": {"network": {"limit": "50/s", "burst": 100, "algorithm": "token_bucket", "by": "ip"}},
    "clients": {
        "acme": {"plan": "pro", "external_id": "cus_123", "attributes": {"tier": "gold"}},
        "globex": {"plan": "free", "overrides": {"hourly": 5000, "burst": {"limit": 5, "burst": 9}}},
    },
}


async def exported(api: httpx.AsyncClient) -> dict[str, Any]:
    answer = await api.get("/v1/config")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def applied(api: httpx.AsyncClient, file: dict[str, Any], **params: Any) -> httpx.Response:
    return await api.put("/v1/config", json=file, params=params)


def changed(**sections: Any) -> dict[str, Any]:
    return {"version": 1, **sections}


async def test_a_file_becomes_so_in_one_revision_and_its_export_changes_nothing(api: httpx.AsyncClient) -> None:
    first = await applied(api, FILE)
    assert first.status_code == 200, first.text
    assert first.headers["x-tidegate-revision"] == "1"
    assert first.json()["counts"]["clients"] == {"create": 2}
    export = await exported(api)
    wanted = {**FILE, "endpoints": dict(sorted(FILE["endpoints"].items())), "backends": FILE["backends"]}
    assert export == wanted
    again = await applied(api, export)
    assert (again.json()["counts"], again.json()["changes"]) == ({}, [])
    assert again.headers["x-tidegate-revision"] == "1"
    assert (await api.get("/v1/plans/pro/limits/monthly")).json()["window"] == "month"
    assert (await api.get("/v1/quotas/pro/monthly")).json()["shares"] == {"us-east": 0.6, "eu-west": 0.4}
    assert (await api.get("/v1/clients/globex/overrides/burst")).json()["burst"] == 9
    (entry,) = (await api.get("/v1/audit", params={"resource": "client", "name": "acme"})).json()["items"]
    assert (entry["action"], entry["before"], entry["after"]["external_id"]) == ("create", None, "cus_123")


async def test_what_is_stored_otherwise_than_written_does_not_differ(api: httpx.AsyncClient) -> None:
    epoch = "1970-01-01T00:00:00Z"
    limits = {
        "days": {"limit": 10, "window": "day", "anchor": epoch},
        "months": {"limit": 10, "window": "month", "anchor": epoch},
        "fine": {"limit": 10, "window_s": 0.1234567, "algorithm": "fixed_window"},
        "hour": {"limit": 10, "window_s": 3600.0000001},
    }
    file = changed(
        plans={"p": {"limits": limits}}, backends={"b": {"capacity": {"limit": 3, "window_s": 0.2500000001}}}
    )
    assert (await applied(api, file)).status_code == 200
    assert (await applied(api, file)).json()["changes"] == []
    assert (await applied(api, await exported(api))).json()["changes"] == []
    # no anchor, for weeks, means Monday
    weekly = await applied(api, changed(limits={"w": {"limit": 1, "window": "week", "anchor": epoch}}))
    assert (weekly.status_code, weekly.json()["errors"][0]["field"]) == (422, "limits.w.anchor")


async def test_absent_sections_stay_and_empty_ones_mean_none(api: httpx.AsyncClient) -> None:
    await applied(api, FILE)
    untouched = await applied(api, changed(limits={}))
    assert untouched.json()["counts"] == {"limits": {"delete": 1}}
    assert (await exported(api)) == {**FILE, "limits": {}}
    # clients are only deleted on demand, their overrides too
    kept = await applied(api, changed(clients={"globex": {"plan": "free"}}))
    assert kept.json()["counts"] == {}
    gone = await applied(api, changed(clients={"globex": {"plan": "free"}}), prune="clients")
    assert gone.json()["counts"] == {"clients": {"update": 1, "delete": 1}}
    assert (await exported(api))["clients"] == {"globex": {"plan": "free"}}


async def test_a_limit_gets_another_name_where_there_can_be_no_more(api: httpx.AsyncClient) -> None:
    limits = {f"l{number}": {"limit": "1/s"} for number in range(100)}
    assert (await applied(api, changed(limits=limits))).status_code == 200
    del limits["l0"]
    renamed = await applied(api, changed(limits={**limits, "other": {"limit": "1/s"}}))
    assert renamed.json()["counts"] == {"limits": {"create": 1, "delete": 1}}
    assert "other" in (await exported(api))["limits"]


async def test_many_deletions_must_be_allowed_by_number(api: httpx.AsyncClient) -> None:
    clients = {f"c{number}": {"plan": "free"} for number in range(11)}
    await applied(api, changed(plans={"free": {}}, clients=clients))
    refused = await applied(api, changed(clients={}), prune="clients")
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "allow_deletes")
    assert "allow_deletes=11" in refused.json()["detail"]
    assert (await applied(api, changed(clients={}), prune="clients", allow_deletes=11)).status_code == 200


async def test_overrides_that_go_with_their_limit_are_named_and_count_as_deletions(api: httpx.AsyncClient) -> None:
    clients = {f"c{number}": {"plan": "free", "overrides": {"hourly": 5}} for number in range(10, 21)}
    await applied(api, changed(plans={"free": {"limits": {"hourly": {"limit": "1000/h"}}}}, clients=clients))
    await api.put("/v1/clients/c10/overrides/hourly", json={"limit": 9, "expires_at": SOON})
    renamed = {"free": {"limits": {"each-hour": {"limit": "1000/h"}}}}
    # one of them is in the file too, which renames its override as well
    file = changed(plans=renamed, clients={"c20": {"plan": "free", "overrides": {"each-hour": 5}}})
    for refused in (await applied(api, file), await applied(api, file, dry_run=True)):
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "allow_deletes")
        assert "allow_deletes=11" in refused.json()["detail"]
    assert (await exported(api))["clients"] == clients
    compared = (await api.post("/v1/config/diff", json=file, params={"allow_deletes": 11})).json()
    made = (await applied(api, file, allow_deletes=11)).json()
    for said in (compared, made):
        assert said["counts"] == {"plans": {"update": 1}, "clients": {"update": 1, "delete": 11}}
        gone = {change["name"]: change["before"] for change in said["changes"] if change["action"] == "delete"}
        assert gone.keys() == {f"{client}.overrides.hourly" for client in clients}
        assert gone["c11.overrides.hourly"] == {"limit": 5}
        assert said["runtime"] == []
        assert (gone["c10.overrides.hourly"]["limit"], gone["c10.overrides.hourly"]["then"]["limit"]) == (9, 5)
    left = {client: {"plan": "free"} for client in clients}
    assert (await exported(api))["clients"] == left | {"c20": {"plan": "free", "overrides": {"each-hour": 5}}}


async def test_as_many_overrides_as_a_client_may_have_take_the_place_of_as_many(api: httpx.AsyncClient) -> None:
    plans = {plan: {"limits": {f"{plan}{at}": {"limit": "9/s"} for at in range(60)}} for plan in ("old", "new")}
    for plan, limits in plans.items():
        clients = {"acme": {"plan": plan, "overrides": dict.fromkeys(limits["limits"], 5)}}
        moved = await applied(api, changed(plans=plans, clients=clients), allow_deletes=60)
        assert moved.status_code == 200, moved.text
        assert (await exported(api))["clients"]["acme"]["overrides"].keys() == limits["limits"].keys()


async def test_an_override_that_goes_as_its_client_moves_is_named(api: httpx.AsyncClient) -> None:
    await applied(api, FILE)
    moved = changed(clients={"globex": {"plan": "pro"}})
    for said in ((await applied(api, moved, dry_run=True)).json(), (await applied(api, moved)).json()):
        assert said["counts"] == {"clients": {"update": 1, "delete": 2}}
        gone = [change["name"] for change in said["changes"] if change["action"] == "delete"]
        assert gone == ["globex.overrides.burst", "globex.overrides.hourly"]


async def test_a_part_of_an_override_that_goes_is_named_and_counts_as_a_deletion(api: httpx.AsyncClient) -> None:
    bucket = {"hourly": {"limit": "1000/h", "algorithm": "token_bucket"}}
    clients = {name: {"plan": "free", "overrides": {"hourly": figures}} for name, figures in
               {"a": 5, "b": {"limit": 5, "burst": 7}, "c": 5, "d": 5}.items()}  # fmt: skip
    await applied(api, changed(plans={"free": {"limits": bucket}}, clients=clients))
    for name, figures in {"a": {"burst": 9}, "b": {}, "c": {}, "d": {"burst": 9}}.items():
        body = {"limit": 9, "expires_at": SOON, **figures}
        (await api.put(f"/v1/clients/{name}/overrides/hourly", json=body)).raise_for_status()
    then = (await api.get("/v1/revisions?limit=1")).json()["items"][0]["revision"]
    fixed = {"free": {"limits": {"hourly": {"limit": "1000/h"}}}}
    file = changed(
        plans=fixed, clients={**clients, "b": {"plan": "free"}, "d": {"plan": "free", "overrides": {"hourly": 6}}}
    )
    for params, update in (({}, 1), ({"prune": "clients"}, 2)):
        said = (await applied(api, file, dry_run=True, **params)).json()
        gone = {change["name"]: change["before"] for change in said["changes"] if change["action"] == "delete"}
        assert {name: (one["limit"], "expires_at" in one, "then" in one) for name, one in gone.items()} == {
            "a.overrides.hourly.temporary": (9, True, False),
            "d.overrides.hourly.temporary": (9, True, False),
            # where the file leaves it out, a pruning one takes it away itself
            **({} if params else {"b.overrides.hourly.then": (5, False, False)}),
        }
        assert said["counts"]["clients"] == {"update": update, "delete": len(gone)}
    assert (await applied(api, file)).json()["counts"] == {
        "plans": {"update": 1},
        "clients": {"update": 1, "delete": 3},
    }
    assert (await exported(api))["clients"] == {
        **clients, "b": {"plan": "free"}, "d": {"plan": "free", "overrides": {"hourly": 6}}
    }  # fmt: skip
    assert (await api.get("/v1/clients/b/overrides/hourly")).json()["limit"] == 9
    (await api.post(f"/v1/revisions/{then}/rollback")).raise_for_status()
    assert (await api.get("/v1/clients/b/overrides/hourly")).json()["then"] == {"limit": 5, "burst": 7}


async def test_a_rollback_names_what_it_takes_of_overrides(api: httpx.AsyncClient) -> None:
    await applied(api, changed(plans={"free": {"limits": {"hourly": {"limit": "1000/h"}}}}, clients={}))
    await api.put("/v1/clients/a", json={"plan": "free"})
    then = (await api.get("/v1/revisions?limit=1")).json()["items"][0]["revision"]
    bucket = {"hourly": {"limit": "1000/h", "algorithm": "token_bucket"}}
    await applied(api, changed(plans={"free": {"limits": bucket}}))
    await api.put("/v1/clients/a/overrides/hourly", json={"limit": 9, "burst": 9, "expires_at": SOON})
    for dry_run in (True, False):
        said = (await api.post(f"/v1/revisions/{then}/rollback", params={"dry_run": dry_run})).json()
        assert [(one["name"], one["action"]) for one in said["changes"]] == [
            ("free", "update"), ("a.overrides.hourly", "delete")
        ]  # fmt: skip
    assert (await api.get("/v1/clients/a/overrides")).json()["items"] == []


async def test_runtime_state_is_shown_and_left_alone(api: httpx.AsyncClient) -> None:
    await applied(api, FILE)
    await api.put("/v1/clients/acme/overrides/exports", json={"limit": 7, "expires_at": SOON})
    await api.put("/v1/quotas/free/hourly", json={"shares": "auto"})
    await api.put("/v1/backends/users/factor", json={"factor": 0.5, "expires_at": SOON})
    export = await exported(api)
    assert export["clients"]["acme"] == FILE["clients"]["acme"]
    assert export["plans"]["free"]["limits"]["hourly"] == {"limit": "1000/h", "shares": "auto"}
    tried = (await applied(api, FILE, dry_run=True)).json()
    assert tried["changes"] == []
    assert {item["kind"] for item in tried["runtime"]} >= {"override", "shares"}
    update = {**FILE, "clients": {**FILE["clients"], "acme": {"plan": "pro"}}}
    assert (await applied(api, update, prune="clients")).json()["counts"] == {"clients": {"update": 1}}
    assert (await api.get("/v1/clients/acme/overrides/exports")).json()["limit"] == 7
    assert (await api.get("/v1/quotas/free/hourly")).json()["shares"] == "auto"


async def test_a_dry_run_tries_everything_and_keeps_nothing(api: httpx.AsyncClient) -> None:
    tried = await applied(api, FILE, dry_run=True)
    assert tried.status_code == 200, tried.text
    assert tried.json()["dry_run"] is True
    assert tried.json()["counts"]["plans"] == {"create": 3}
    assert (await exported(api)) == {name: 1 if name == "version" else {} for name in FILE}
    misspelt = await applied(api, FILE, dryrun=True)
    assert (misspelt.status_code, misspelt.json()["errors"][0]["field"]) == (422, "dryrun")
    assert [item["name"] for item in (await api.get("/v1/audit")).json()["items"]] == ["tok_first"]


ERRORS = [
    (changed(plans={"free": {"limits": {"hourly": {"limit": "1000/x"}}}}), "plans.free.limits.hourly.limit"),
    (changed(plans={"free": {"limits": {"hourly": {"limit": "9999G/h"}}}}), "plans.free.limits.hourly.limit"),
    (changed(plans={"free": {"limits": {"hourly": {"limit": 5}}}}), "plans.free.limits.hourly.window_s"),
    (changed(plans={"free": {"limits": {"a": {"limit": "5/s", "by": "nobody"}}}}), "plans.free.limits.a.by"),
    (
        changed(plans={"free": {"limits": {"a": {"limit": "5/s", "shares": {"mars": 1}}}}}),
        "plans.free.limits.a.shares.mars",
    ),
    (changed(plans={"free": {"limits": {"a": {"limit": "5/s", "colour": "red"}}}}), "plans.free.limits.a.colour"),
    (changed(endpoints={"e": {"route": "GET nowhere"}}), "endpoints.e.route"),
    (changed(endpoints={"e": {"route": f"{'A' * 17} /"}}), "endpoints.e.route"),
    (changed(endpoints={"e": {"route": "GET /", "backend": "nope"}}), "endpoints.e.backend"),
    (changed(backends={"b": {"capacity": "5/month"}}), "backends.b"),
    (changed(backends={"b": {"capacity": 5}}), "backends.b.capacity"),
    (changed(backends={"b": {"capacity": "0/s"}}), "backends.b.capacity.limit"),
    (changed(clients={"acme": {"plan": "nope"}}), "clients.acme.plan"),
    (changed(plans={"free": {}}, clients={"a": {"plan": "free", "overrides": {"x": 1}}}), "clients.a.overrides.x"),
    ({"version": 2}, "version"),
    (changed(keys={}), "keys"),
]


async def test_an_error_names_its_place_and_nothing_changes(api: httpx.AsyncClient) -> None:
    for file, place in ERRORS:
        with_more = {"regions": {"us-east": {}}, **file}
        refused = await applied(api, with_more)
        assert refused.status_code == 422, (place, refused.text)
        assert refused.json()["errors"][0]["field"] == place
        assert (await exported(api))["regions"] == {}, place
        assert (await api.get("/v1/revisions")).json()["items"] == [], place


async def test_if_match_takes_the_revision_that_was_read(api: httpx.AsyncClient) -> None:
    await applied(api, FILE)
    read = await api.get("/v1/config")
    tag = {"If-Match": read.headers["etag"]}
    await api.put("/v1/clients/acme", json={"plan": "free", "external_id": "other"})
    assert (await api.put("/v1/config", json=FILE, headers=tag)).status_code == 412
    tag = {"If-Match": (await api.get("/v1/config")).headers["etag"]}
    written = await api.put("/v1/config", json=FILE, headers=tag)
    assert written.status_code == 200
    tag = {"If-Match": written.headers["etag"]}
    rolled_back = await api.post("/v1/revisions/1/rollback", headers=tag)
    assert rolled_back.status_code == 200, "the answer to a write has the tag that the next one must name"
    tag = {"If-Match": rolled_back.headers["etag"]}
    assert (await api.put("/v1/config", json=changed(limits={}), headers=tag)).status_code == 200


async def test_routes_can_change_places(api: httpx.AsyncClient) -> None:
    await applied(api, changed(endpoints={"a": {"route": "GET /a"}, "b": {"route": "GET /b"}}))
    swapped = changed(endpoints={"a": {"route": "GET /b"}, "c": {"route": "GET /a"}})
    assert (await applied(api, swapped)).status_code == 200
    assert (await exported(api))["endpoints"] == swapped["endpoints"]
    assert (await api.put("/v1/endpoints/d", json={"method": "GET", "path": "/b"})).status_code == 409


async def test_what_is_in_use_is_named(api: httpx.AsyncClient) -> None:
    await applied(api, FILE)
    refused = await applied(api, changed(plans={"free": FILE["plans"]["free"]}))
    assert refused.status_code == 409
    assert refused.json()["detail"].startswith("plans.pro: ")


async def test_a_rollback_brings_the_configuration_back_but_no_revoked_key(api: httpx.AsyncClient) -> None:
    await applied(api, FILE)
    key = (await api.post("/v1/clients/acme/keys", json={})).json()
    then = int((await api.get("/v1/config")).headers["etag"].strip('"'))
    documents = await documents_of(api, then)
    before = await exported(api)
    await api.delete(f"/v1/clients/acme/keys/{key['key_id']}")
    await api.post("/v1/clients/acme/reset", json={})
    await api.put("/v1/plans/free", json={"limits": [{"name": "hourly", "limit": 9, "window": "day"}]})
    await api.put("/v1/plans/new", json={})
    await api.put("/v1/clients/acme", json={"plan": "new"})
    await api.put("/v1/clients/late", json={"plan": "new"})
    await api.delete("/v1/limits/network")
    await api.delete("/v1/clients/globex")
    await api.put("/v1/quotas/pro/monthly", json={"shares": {"us-east": 1}})
    back = await api.post(f"/v1/revisions/{then}/rollback", json={"reason": "too tight"})
    assert back.status_code == 200, back.text
    assert (await exported(api)) == before
    newest = int(back.headers["x-tidegate-revision"])
    assert (await api.get(f"/v1/revisions/{newest}")).json()["reason"] == "too tight"
    assert (await api.get("/v1/clients/acme")).json()["generation"] == 1
    assert (await api.get(f"/v1/clients/acme/keys/{key['key_id']}")).status_code == 404
    now = await documents_of(api, newest)
    differing = {name for name in {*documents, *now} if documents.get(name) != now.get(name)}
    assert {kind for kind, _ in differing} <= {"key", "client"}
    assert differing == {("key", key["key_id"]), ("client", "acme")}
    assert (await api.post("/v1/revisions/999/rollback", json={})).status_code == 404
    assert (await api.post(f"/v1/revisions/{newest}/rollback", json={})).status_code == 422


async def documents_of(api: httpx.AsyncClient, revision: int) -> dict[tuple[str, str], Any]:
    """The documents as the history says they were at a revision, from the first one on."""
    found: dict[tuple[str, str], Any] = {}
    for number in range(1, revision + 1):
        for change in (await api.get(f"/v1/revisions/{number}/diff")).json()["changes"]:
            found[change["kind"], change["id"]] = change["after"]
    return {name: body for name, body in found.items() if body is not None}


async def test_all_shares_of_a_plan_are_one_entry_of_the_audit_log(api: httpx.AsyncClient) -> None:
    split = {"limit": "100/s", "mode": "regional", "shares": {"us-east": 0.75, "eu-west": 0.25}}
    plans = {"plans": {"free": {"limits": {"a": split, "b": split, "c": split}}}}
    (await api.put("/v1/config", json={"version": 1, "regions": FILE["regions"], **plans})).raise_for_status()
    entries = (await api.get("/v1/audit", params={"resource": "plan"})).json()["items"]
    assert [entry["action"] for entry in entries] == ["update", "create"]
    made, before = (
        {limit["name"]: limit["shares"] for limit in entries[0][side]["limits"]} for side in ("after", "before")
    )
    assert made == dict.fromkeys("abc", split["shares"])
    assert before == dict.fromkeys("abc")


async def test_a_rollback_takes_shares_back_from_the_rebalancer(api: httpx.AsyncClient) -> None:
    await applied(api, FILE)
    then = (await api.get("/v1/config")).headers["etag"].strip('"')
    await api.put("/v1/quotas/free/hourly", json={"shares": "auto"})
    await api.put("/v1/quotas/pro/monthly", json={"shares": "auto"})
    await api.put("/v1/quotas/_/network", json={"shares": "auto"})
    assert (await api.post(f"/v1/revisions/{then}/rollback")).status_code == 200  # without a body, as runbooks have it
    assert (await exported(api)) == FILE


async def test_a_diff_between_two_revisions(api: httpx.AsyncClient) -> None:
    for priority in (1, 2, 3):
        await api.put("/v1/plans/p", json={"priority": priority})
    await api.put("/v1/plans/q", json={})
    changes = (await api.get("/v1/revisions/1/diff", params={"to": 4})).json()["changes"]
    assert [(item["id"], item["before"], item["after"]) for item in changes] == [
        ("p", {"plan": "p", "priority": 1}, {"plan": "p", "priority": 3}),
        ("q", None, {"plan": "q"}),
    ]
    turned = (await api.get("/v1/revisions/4/diff", params={"to": 1})).json()["changes"]
    assert [(item["before"], item["after"]) for item in turned] == [(item["after"], item["before"]) for item in changes]
    assert (await api.get("/v1/revisions/1/diff", params={"to": 9})).status_code == 404


async def test_a_diff_comes_in_pages_that_show_no_hash(api: httpx.AsyncClient) -> None:
    await api.put("/v1/config", json=changed(plans={"p": {}}, clients={f"c{n}": {"plan": "p"} for n in range(5)}))
    for number in range(3):
        await api.post(f"/v1/clients/c{number}/keys", json={"secret_sha256": f"{number}" * 64})
    gone = (await api.get("/v1/clients/c0/keys")).json()["items"][0]["key_id"]
    await api.delete(f"/v1/clients/c0/keys/{gone}")  # made and gone in between: no difference
    cases: list[tuple[int, dict[str, Any], int]] = [(1, {}, 6), (1, {"to": 5}, 2), (5, {"to": 1}, 2)]
    for number, params, expected in cases:
        path = f"/v1/revisions/{number}/diff"
        whole = (await api.get(path, params=params)).json()
        assert (len(whole["changes"]), whole["next_cursor"]) == (expected, None)
        parts: list[Any] = []
        more: dict[str, str] = {}
        while more or not parts:
            page = (await api.get(path, params=params | {"limit": 1} | more)).json()
            parts += page["changes"]
            more = {} if page["next_cursor"] is None else {"cursor": page["next_cursor"]}
            told = b64decode(page["next_cursor"] or "").decode()
            assert not any(f"{digit}" * 32 in told for digit in range(3))
        assert parts == whole["changes"]
    assert (await api.get("/v1/revisions/1/diff?cursor=YQ==")).status_code == 422


def settings_url(settings: Settings) -> str:
    return settings.database_url.get_secret_value().replace("+asyncpg", "")


async def test_a_database_that_dies_on_the_way_leaves_nothing(
    make_settings: Callable[..., Settings], postgres_server: PostgresServer
) -> None:
    clients = {f"c{number}": {"plan": "free"} for number in range(3_000)}
    file = changed(plans={"free": {}}, clients=clients)
    async with Proxy(postgres_server.port).running() as proxy:
        settings = make_settings()
        through = settings.database_url.get_secret_value().replace(f":{postgres_server.port}/", f":{proxy.port}/")
        settings = make_settings(database_url=SecretStr(through))
        async with running(settings, ADMIN_TOKEN) as control_plane:
            holder = await asyncpg.connect(settings_url(make_settings()))
            async with holder.transaction():
                # everything is written but the last, the audit log, and nothing is committed
                await holder.execute("LOCK TABLE audit_log IN EXCLUSIVE MODE")
                sending = asyncio.create_task(control_plane.admin.put("/v1/config", json=file))
                waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = $1"
                async with asyncio.timeout(30):
                    while not await holder.fetchval(waits, DATABASE):
                        await asyncio.sleep(0.02)
                assert await holder.fetchval("SELECT count(*) FROM clients") == 0
                await proxy.cut()
                refused = await sending
            await holder.close()
            assert refused.status_code == 503, refused.text
            await proxy.heal()
            async with asyncio.timeout(20):
                while (read := await control_plane.admin.get("/v1/config")).status_code != 200:
                    assert read.status_code == 503
                    await asyncio.sleep(0.05)
            assert read.json() == {"version": 1, **{name: {} for name in FILE if name != "version"}}
            assert (await control_plane.admin.get("/v1/revisions")).json()["items"] == []
