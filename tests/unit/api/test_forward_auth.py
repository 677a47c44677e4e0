import pytest

from data_plane.api.forward_auth import DIALECTS, RefusedInputError, denies_as_403, read

KEYS = ("x-api-key", "authorization")


def ask(method="GET", target="/v1/authorize", headers=(), dialect="nginx", *, by_token=False, hops=1):
    pairs = [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in headers]
    return read(
        method, target, pairs, dialect=DIALECTS[dialect], by_token=by_token, key_sources=KEYS, trusted_hops=hops
    )


def test_envoy_says_method_and_path_in_the_subrequest_itself():
    check = ask("POST", "/v1/authorize/api/users?deny_status=403", [("x-original-uri", "/other")], "envoy")
    assert (check.check.method, check.check.path) == ("POST", "/api/users?deny_status=403")
    assert not check.deny_as_403


def test_an_end_client_cannot_turn_denials_into_403_by_its_own_query():
    assert not ask(target="/v1/authorize/?deny_status=403", dialect="envoy").deny_as_403
    assert ask(target="/v1/authorize?deny_status=403").deny_as_403
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
    check = ask(headers=headers, dialect=dialect).check
    assert (check.method, check.path) == ("PUT", "/a")
    assert ask(headers=headers, dialect="nginx").check.path == "/b"


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
    assert ask(headers=[("x-forwarded-for", one) for one in chain], hops=hops).check.ip == address


def test_two_distinct_credentials_are_refused_and_the_same_one_twice_is_not():
    same = [("x-api-key", "k"), ("authorization", "Bearer k")]
    assert ask(headers=same).check.api_key == "k"
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
    assert ask(headers=[("x-api-key", "k,k")]).check.api_key == "k"
    assert ask(headers=[("authorization", "Basic eDp5, Bearer k")]).check.api_key == "k"


def test_what_a_gateway_tells_counts_only_with_its_token():
    told = [("x-tidegate-client", "acme"), ("x-tidegate-cost", "7"), ("x-tidegate-attribute-tier", "gold")]
    without = ask(headers=[*told, ("x-api-key", "k")]).check
    assert (without.client, without.cost, without.attributes, without.api_key) == (None, 1, {}, "k")
    with_token = ask(headers=[*told, ("x-api-key", "k")], by_token=True).check
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


@pytest.mark.parametrize("cost", ["-1", "1.5", "x", "9" * 14, "", "\uff11"])
def test_a_cost_that_is_no_whole_number_is_a_refusal(cost):
    with pytest.raises(RefusedInputError):
        ask(headers=[("x-tidegate-cost", cost)], by_token=True)
