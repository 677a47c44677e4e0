"""Declarative files of Kong: what each plugin, target and member becomes, written anew after Kong's reference."""

from pathlib import Path

import pytest

from tests.unit.importing.running import Imported, import_file, refused

ROUTED = """
_format_version: "3.0"
services:
  - name: users
    url: http://users.internal
    routes:
      - { name: get-user, methods: [GET, HEAD], paths: ["~/users/(?<id>\\\\d+)/orders/([^/]+)$"] }
      - { name: list, paths: [/users/, /people] }
"""


@pytest.fixture
def imported(tmp_path: Path):
    def run(text: str) -> Imported:
        (tmp_path / "kong.yml").write_text(text)
        return import_file("kong", tmp_path / "kong.yml")

    return run


def test_routes_are_endpoints_of_their_services_and_prefixes_are_remarked_on(imported):
    found = imported(ROUTED)
    assert found.content["endpoints"] == {
        "get-user": {"route": "GET /users/{id}/orders/{p1}", "backend": "service-users"},
        "get-user-2": {"route": "HEAD /users/{id}/orders/{p1}", "backend": "service-users"},
        "list": {"route": "* /users", "backend": "service-users"},
        "list-2": {"route": "* /people", "backend": "service-users"},
    }
    assert found.content["backends"] == {"service-users": {}}
    assert "services[0].routes[1]  path /people: all that begins with it in Kong, that path alone here" in found.remarks
    assert "routes[0]" not in found.remarks


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("~/a/.*", "no template says the same"),
        ("~/a|/b", "no template"),
        ("/a//b", "no template"),
        ("~/(?<a>x|y)", "no template"),
    ],
)
def test_a_path_that_is_no_template_is_left_out_and_limits_nothing_else(imported, path, said):
    found = imported(f"""
routes:
  - name: odd
    paths: ["{path}"]
    plugins: [{{ name: rate-limiting, config: {{ minute: 1 }} }}]
""")
    assert "endpoints" not in found.content
    assert "limits" not in found.content
    assert all(plan["limits"] == {} for plan in found.content.get("plans", {}).values())
    assert said in found.remarks


def test_a_plugin_for_everybody_limits_clients_by_plan_and_strangers_by_address(imported):
    found = imported("""
plugins:
  - name: rate-limiting
    config: { second: 5, hour: 1000, month: 20000, policy: redis, redis: { host: r, password: p4ss } }
consumers: [{ username: globex }, { custom_id: cus 7 }]
""")
    figures = {"all-second": "5/s", "all-hour": "1000/h", "all-month": "20000/month"}
    for plan, by in (("default", "client"), ("anonymous", "ip")):
        assert found.content["plans"][plan]["limits"] == {
            name: {"limit": limit, "by": by, "algorithm": "fixed_window"} for name, limit in figures.items()
        }
    assert found.content["clients"] == {"globex": {"plan": "default"}, "cus-7": {"plan": "default"}}
    assert "plugins[0]  redis: where a region's store is" in found.remarks
    assert "p4ss" not in found.remarks + found.comments + str(found.content)


def test_the_closest_instance_of_a_plugin_is_the_one_that_counts(imported):
    found = imported(
        ROUTED
        + """
    plugins: [{ name: rate-limiting, config: { minute: 20 } }]
routes: [{ name: alone, paths: [/alone] }]
plugins:
  - { name: rate-limiting, config: { minute: 10 } }
  - { name: rate-limiting, route: list, config: { minute: 30 } }
  - { name: rate-limiting, route: { name: list }, consumer: acme, config: { minute: 300 } }
  - { name: rate-limiting, consumer_group: gold, config: { minute: 100 } }
consumer_groups: [{ name: gold }]
consumers:
  - { username: acme, groups: [{ name: gold }] }
  - { username: initech, groups: [{ name: gold }] }
  - { username: globex }
"""
    )
    plans = {
        name: {limit["limit"]: limit.get("match", {}).get("endpoints") for limit in plan["limits"].values()}
        for name, plan in found.content["plans"].items()
    }
    of_users, of_list, everywhere = ["get-user", "get-user-2"], ["list", "list-2"], None
    assert plans["default"] == {"20/min": of_users, "10/min": ["alone"], "30/min": of_list}
    assert plans["group-gold"] == {"100/min": everywhere}
    assert plans["consumer-acme"] == {"300/min": of_list, "100/min": [*of_users, "alone"]}
    assert found.content["clients"] == {
        "acme": {"plan": "consumer-acme"}, "initech": {"plan": "group-gold"}, "globex": {"plan": "default"},
    }  # fmt: skip


def test_both_plugins_count_side_by_side(imported):
    found = imported("""
plugins:
  - { name: rate-limiting, config: { minute: 10 } }
  - { name: rate-limiting-advanced, config: { limit: [5, 100], window_size: [60, 7200], window_type: fixed } }
consumers: [{ username: acme }]
""")
    limits = found.content["plans"]["default"]["limits"]
    assert {name: (one["limit"], one["algorithm"]) for name, one in limits.items()} == {
        "all-minute": ("10/min", "fixed_window"), "all-minute-2": ("5/60s", "fixed_window"),
        "all-7200s": ("100/7200s", "fixed_window"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("config", "by"),
    [
        ("limit_by: ip", "ip"), ("limit_by: service", "backend"), ("limit_by: path, path: /x", "endpoint"),
        ("limit_by: header, header_name: X-Tenant", "attribute:x-tenant"),
    ],
)  # fmt: skip
def test_what_counts_by_nobody_is_a_limit_outside_plans(imported, config, by):
    found = imported(f"plugins: [{{ name: rate-limiting, config: {{ minute: 9, {config} }} }}]")
    assert found.content["limits"] == {"all-minute": {"limit": "9/min", "by": by, "algorithm": "fixed_window"}}


def test_members_become_what_they_mean_and_the_rest_is_named(imported):
    found = imported("""
plugins:
  - name: rate-limiting-advanced
    config:
      limit: [100]
      window_size: [3600]
      compound_identifier: [ip, service]
      sync_rate: -1
      namespace: shared
      hide_client_headers: true
      error_message: no
      retry_after_jitter_max: 3
      throttling: { enabled: true }
      surprise: 1
  - { name: rate-limiting, config: { year: 7, limit_by: ip, fault_tolerant: false, error_code: 420 } }
  - { name: rate-limiting, enabled: false, config: { minute: 1 } }
  - { name: response-ratelimiting, config: {} }
  - { name: key-auth }
""")
    assert found.content["limits"] == {
        "all-hour": {"limit": "100/3600s", "by": "ip+backend", "algorithm": "sliding_window", "visible": False},
        "all-year": {"limit": "7/365day", "by": "ip", "algorithm": "fixed_window", "on_store_failure": "closed"},
    }
    for place, word in (
        (0, "disable_penalty"), (0, "counts of each Kong node"), (0, "namespace"), (0, "error_message"),
        (0, "throttling"),
        (0, "retry_after_jitter_max"), (0, "surprise is not known"), (1, "year"), (1, "error_code"), (2, "not enabled"),
        (3, "response-ratelimiting"),
    ):  # fmt: skip
        assert any(f"plugins[{place}] " in line and word in line for line in found.remarks.splitlines()), (place, word)
    assert "key-auth" not in found.remarks


def test_keys_are_neither_written_nor_said(imported):
    found = imported("""
consumers:
  - username: acme
    keyauth_credentials: [{ key: very-secret-key }]
    basicauth_credentials: [{ username: u, password: very-secret-word }]
""")
    assert "credentials are not part of a file" in found.remarks
    assert "very-secret" not in found.remarks + found.comments + str(found.content)


LIMITS = ", ".join(str(nth) for nth in range(1, 102))


def plain(config: str, target: str = "") -> str:
    return f"plugins: [{{ name: rate-limiting, {target} config: {{ {config} }} }}]\n"


def advanced(config: str) -> str:
    return f"plugins: [{{ name: rate-limiting-advanced, config: {{ {config} }} }}]\nconsumers: [{{ username: a }}]\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("_format_version: '3.0'\n", "it is no declarative file of Kong"),
        ("services: 3\n", "services: must be a list"),
        ("plugins: [x]\n", "plugins[0]: must be a mapping"),
        ("plugins: [{ config: {} }]\n", "plugins[0].name: must be given"),
        (plain(""), "allows nothing in no window"),
        (plain("minute: -1"), "config.minute: must be a whole number"),
        (plain("minute: 1.5"), "config.minute: must be a whole number"),
        (plain("minute: &a [*a]"), "kong.yml"),
        (plain("minute: 1", "consumer: nobody,"), "there is no consumer nobody"),
        (plain("minute: 1", "route: nowhere,"), "there is no route nowhere"),
        (plain("minute: 1", "consumer: a, consumer_group: b,"), "no plugin is put on consumer and consumer_group"),
        (advanced("limit: [1], window_size: []"), "not of one length"),
        (advanced("limit: [1], window_size: [0]"), "from 1 to"),
        (advanced("limit: [1], window_size: [9], window_type: x"), "'x' is neither"),
        (advanced(f"limit: [{LIMITS}], window_size: [{LIMITS}]"), "101 limits for the same requests"),
        ("routes: [{ paths: [/a], methods: ['GET\\nX'] }]\n", "is no method"),
        ("plugins: " + "[" * 600 + "]" * 600, "is nested too deeply"),
        (
            "routes:\n" + "".join(f"  - {{ name: r{nth}, paths: [/{nth}] }}\n" for nth in range(1_001)),
            "more than 1000 routes",
        ),
    ],
)
def test_hostile_and_wrong_files_are_refused_by_name(tmp_path, text, said):
    (tmp_path / "kong.yml").write_text(text)
    assert said in refused("kong", tmp_path / "kong.yml")
