import pytest

from data_plane.http.forward_auth import DIALECTS, RefusedInputError, denies_as_403, known_fields, read

KEYS = (b"x-api-key", b"authorization")


def ask(method="GET", target="/v1/authorize", headers=(), dialect="nginx", *, by_token=False, hops=1):
    pairs = [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in headers]
    return read(
        method, target, known_fields(pairs),
        dialect=DIALECTS[dialect], by_token=by_token, key_sources=KEYS, trusted_hops=hops,
    )  # fmt: skip


def test_envoy_says_method_and_path_in_the_subrequest_itself():
    check = ask("POST", "/v1/authorize/api/users?deny_status=403", [("x-original-uri", "/other")], "envoy")
    assert (check.method, check.path) == ("POST", "/api/users?deny_status=403")


def test_an_end_client_cannot_turn_denials_into_403_by_its_own_query():
    assert denies_as_403("/v1/authorize?deny_status=403")
    assert not denies_as_403("/v1/authorize/?deny_status=403")
    assert not denies_as_403("/v1/authorize")


def test_only_403_is_a_deny_status():
    with pytest.raises(RefusedInputError):
        ask(target="/v1/authorize?deny_status=200")


@pytest.mark.parametrize("dialect", ["traefik", "caddy", "haproxy"])
def test_each_dialect_reads_its_own_family_of_headers_only(dialect):
    headers = [
        ("x-forwarded-method", "put"),
        ("x-forwarded-uri", "/a"),
        ("x-original-uri", "/b"),
        ("x-original-method", "GET"),
    ]
    check = ask(headers=headers, dialect=dialect)
    assert (check.method, check.path) == ("PUT", "/a")
    assert ask(headers=headers, dialect="nginx").path == "/b"


@pytest.mark.parametrize(
    ("chain", "hops", "address"),
    [
        (["1.1.1.1, 2.2.2.2"], 1, "2.2.2.2"),
        (["1.1.1.1, 2.2.2.2"], 2, "1.1.1.1"),
        (["1.1.1.1", "2.2.2.2"], 1, "2.2.2.2"),
        (["1.1.1.1"], 2, None),
        ([], 1, None),
        (["[2001:db8::1]:443"], 1, "2001:db8::1"),
        (["2001:db8::1"], 1, "2001:db8::1"),
        (["1.1.1.1:8080"], 1, "1.1.1.1"),
    ],
)
def test_the_address_is_counted_from_the_right_where_clients_cannot_write(chain, hops, address):
    assert ask(headers=[("x-forwarded-for", one) for one in chain], hops=hops).ip == address


def test_two_distinct_credentials_are_refused_and_the_same_one_twice_is_not():
    same = [("x-api-key", "k"), ("authorization", "Bearer k")]
    assert ask(headers=same).api_key == "k"
    with pytest.raises(RefusedInputError) as refused:
        ask(headers=[("x-api-key", "k"), ("authorization", "Bearer other")])
    assert refused.value.status == 401


@pytest.mark.parametrize(
    "headers", [[("x-api-key", "one,two")], [("authorization", "Bearer one, Bearer two")], [("x-api-key", "one, two")]]
)
def test_keys_that_a_gateway_joined_by_commas_are_as_many_as_they_were(headers):
    with pytest.raises(RefusedInputError) as refused:
        ask(headers=headers)
    assert (refused.value.status, refused.value.error) == (401, "ambiguous_api_key")


def test_the_same_key_joined_by_a_comma_is_one():
    assert ask(headers=[("x-api-key", "k,k")]).api_key == "k"
    assert ask(headers=[("authorization", "Basic eDp5, Bearer k")]).api_key == "k"


def test_what_a_gateway_tells_counts_only_with_its_token():
    told = [("x-tidegate-client", "acme"), ("x-tidegate-cost", "7"), ("x-tidegate-attribute-tier", "gold")]
    without = ask(headers=[*told, ("x-api-key", "k")])
    assert (without.client, without.cost, without.attributes, without.api_key) == (None, 1, {}, "k")
    with_token = ask(headers=[*told, ("x-api-key", "k")], by_token=True)
    assert (with_token.client, with_token.cost, with_token.attributes) == ("acme", 7, {"tier": "gold"})
    assert with_token.api_key is None


@pytest.mark.parametrize(
    "headers",
    [
        [("x-original-uri", "/a"), ("x-original-uri", "/b")],
        [("x-original-uri", b"/\xff")],
        [("x-api-key", "k" * 300)],
        [("x-api-key", b"\xff")],
    ],
)
def test_malformed_input_is_a_refusal(headers):
    with pytest.raises(RefusedInputError):
        ask(headers=headers)


@pytest.mark.parametrize("cost", ["-1", "1.5", "x", "1000000000001", "9" * 14, "", "\uff11"])
def test_a_cost_that_is_no_whole_number_or_too_large_is_a_refusal(cost):
    with pytest.raises(RefusedInputError, match="must be a whole number, at most 1,000,000,000,000"):
        ask(headers=[("x-tidegate-cost", cost)], by_token=True)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://elsewhere/api/x?y=/z", "/api/x?y=/z"),
        ("HTTPS://user@[::1]:8080/a", "/a"),
        ("http://elsewhere", "/"),
        ("http://elsewhere?a=/b", "/?a=/b"),
        ("/a?b=http://c/d", "/a?b=http://c/d"),
        ("*", "*"),
        ("elsewhere:443", "elsewhere:443"),
    ],
)
def test_a_target_with_scheme_and_host_is_the_path_that_upstreams_get(target, path):
    assert ask(headers=[("x-forwarded-uri", target)], dialect="caddy").path == path


def test_an_attribute_that_would_fill_the_store_is_refused():
    assert ask(headers=[("x-tidegate-attribute-tenant", "é" * 64)], by_token=True).attributes == {"tenant": "é" * 64}
    with pytest.raises(RefusedInputError) as refused:
        ask(headers=[("x-tidegate-attribute-tenant", "é" * 65)], by_token=True)
    assert refused.value.status == 403
