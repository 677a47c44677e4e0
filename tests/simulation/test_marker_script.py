"""Joining a store and beginning its epoch, as the scripts do it."""

from typing import Any

import pytest
import redis

from data_plane.store.scripts import epoch_marker_script, raise_epoch_marker_script
from data_plane.store.strict_packing import decode_marker

PENDING = 2**53


@pytest.fixture
def scripts(valkey_server: Any):
    with redis.Redis.from_url(valkey_server.url) as client:
        yield client, client.register_script(epoch_marker_script()), client.register_script(raise_epoch_marker_script())
        client.delete("{m}", "{m}s")


def test_a_new_epoch_is_pending_until_it_is_proven_and_then_only_raised(scripts: Any):
    client, join, renew = scripts
    assert join(["{m}"], ["run", "allkeys-lru", 7]) == b"evicting_store"
    assert join(["{m}"], ["run", "noeviction", 7]) == [7]
    assert join(["{m}"], ["run", "noeviction", 8]) == [7], "it is kept"
    pending = decode_marker(client.get("{m}"))
    assert (pending.incarnation, pending.revision) == (7, PENDING)

    def renewed(revision: int, proven_for: int, run_id: str = "run") -> Any:
        return renew(["{m}", "{m}s"], [run_id, revision, 600_000, proven_for, b"me", 3_000])

    assert renewed(30, 0)[4] == 1
    assert renewed(30, 6)[4] == 1, "proven for another one"
    assert client.get("{m}s") is None
    incarnation, revision, horizon, now_us, is_pending, state = renewed(30, 7)
    assert (incarnation, revision, horizon, is_pending, state) == (7, b"30", 600_000, 0, b"me")
    begun = decode_marker(client.get("{m}"))
    assert (begun.revision, begun.birth_us) == (30, now_us), "what was admitted before nobody knows"
    assert 0 < client.pttl("{m}s") <= 3_000
    assert renewed(17, 0)[1] == b"30", "an agent with older shares lowers nothing"
    assert renewed(31, 0)[1] == b"31"
    assert decode_marker(client.get("{m}")).birth_us == begun.birth_us
    assert client.ttl("{m}") == -1
    assert renewed(31, 7, "another run") is None
    assert join(["{m}"], ["another run", "noeviction", 9]) == [9]
    assert decode_marker(client.get("{m}")).revision == PENDING, "it may have forgotten something"
    client.delete("{m}")
    assert renewed(31, 9, "another run") is None, "nobody has joined it"
