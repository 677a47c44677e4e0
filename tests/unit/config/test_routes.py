import pytest

from data_plane.config.routes import PREFLIGHT, UNMATCHED, RouteTable
from tidegate.contract.config import Endpoint

TABLE = RouteTable(
    [
        Endpoint(endpoint="list-users", method="GET", path="/api/users"),
        Endpoint(endpoint="get-user", method="GET", path="/api/users/{id}"),
        Endpoint(endpoint="me", method="GET", path="/api/users/me"),
        Endpoint(endpoint="orders", method="POST", path="/api/users/{id}/orders"),
        Endpoint(endpoint="root", method="GET", path="/"),
        Endpoint(endpoint="options", method="OPTIONS", path="/api/described"),
    ]
)


@pytest.mark.parametrize(
    ("method", "path", "endpoint"),
    [
        ("GET", "/api/users", "list-users"),
        ("GET", "/api/users/7", "get-user"),
        ("GET", "/api/users/me", "me"),
        ("GET", "/api/users/7?page=2#top", "get-user"),
        ("HEAD", "/api/users/7", "get-user"),
        ("get", "/api/users/7", "get-user"),
        ("POST", "/api/users/me/orders", "orders"),
        ("GET", "/", "root"),
        ("GET", "/api/%75sers/7", "get-user"),
        ("OPTIONS", "/api/described", "options"),
        ("GET", "/api/users/7;v=1", "get-user"),
        ("POST", "/api/users/7;v=1/orders", "orders"),
    ],
)
def test_a_request_belongs_to_the_most_literal_route(method, path, endpoint):
    assert TABLE.match(method, path).endpoint == endpoint


@pytest.mark.parametrize(
    "path",
    [
        "/api/other", "/api/users/", "//api/users", "/api//users", "/api/./users", "/api/users/../users",
        "/api/users/%2e%2e", "/api/users/a%2Fb", "/api/users/a%5cb", "/api/users/a\\b", "/api/users/%00", "api/users",
        "", "/api/users/%ff", "/" + "a" * 9000,
        "/api/users/..;", "/api/users/..;/7", "/api/users/.;", "/api/users/%2e%2e%3b", "/api/users/..;v=1",
        "/api/users/;", "/api/users/..%3Ba", "/api/users/me;v=1", "/api/users/me%3bv=1",
    ],
)  # fmt: skip
def test_what_a_backend_could_read_otherwise_matches_nothing(path):
    assert TABLE.match("GET", path) is UNMATCHED


def test_a_preflight_is_exempt_unless_the_table_says_otherwise():
    assert TABLE.match("OPTIONS", "/api/users/7") is PREFLIGHT
    assert PREFLIGHT.exempt
