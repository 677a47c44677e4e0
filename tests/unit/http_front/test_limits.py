"""How many connections a port takes follows what its process may open."""

import resource

import pytest

from tidegate.http_front import limits


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "connections"),
    [
        (300, 300, 300, 150),
        (1_024, 4_096, 4_096, 3_904),
        (1_024, 1_048_576, 16_576, 16_384),
        (1_024, resource.RLIM_INFINITY, 16_576, 16_384),
        (1_048_576, 1_048_576, 1_048_576, 16_384),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, resource.RLIM_INFINITY, 16_384),
        (20, 20, 20, 16),
    ],
)
def test_connections_follow_descriptors(monkeypatch, soft, hard, raised, connections):
    now = [soft, hard]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(now))
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: now.__setitem__(slice(None), wanted))
    limits.use_all_descriptors()
    assert now == [raised, hard]
    assert limits.connections_that_fit() == connections
