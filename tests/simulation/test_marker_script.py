"""Joining a store, in Lua as in the pure step."""

import random
from importlib.resources import files
from typing import Any

import redis

from data_plane.domain.regions.marker import Marker, joined
from data_plane.domain.regions.rules import ALL_RULES
from data_plane.domain.regions.wire import decode_marker

SCRIPT = "\n".join((files("lua") / f"{part}.lua").read_text("utf-8") for part in ("prelude", "marker"))


def test_joining_agrees_with_the_pure_step(valkey_server: Any):
    chance = random.Random(3)
    with redis.Redis.from_url(valkey_server.url) as client:
        script = client.register_script(SCRIPT)
        marker: Marker | None = None
        lives = 0
        for number in range(300):
            if chance.random() < 0.05:
                client.delete("{m}")
                marker = None
            run_id = chance.choice(["first", "first", "second"])
            policy = chance.choice(["noeviction"] * 9 + ["allkeys-lru"])
            revision, fresh, horizon = chance.randrange(50), chance.randrange(1, 2**32), chance.choice([0, 600_000])
            reply = script(["{m}"], [run_id, policy, revision, fresh, horizon])
            if policy != "noeviction":
                assert reply == b"evicting_store"
                continue
            incarnation, held_revision, birth_us, now_us = reply
            was = marker
            expected = joined(
                marker,
                run_id=run_id,
                policy=policy,
                revision=revision,
                now_us=now_us,
                fresh=fresh,
                first=False,
                rules=ALL_RULES,
            )
            assert isinstance(expected, Marker), number
            marker = expected
            assert Marker(incarnation, birth_us, held_revision, run_id) == expected
            assert decode_marker(client.get("{m}")) == expected
            lives += was is None or was.incarnation != expected.incarnation
            assert client.ttl("{m}") == -1
        assert lives > 50
        client.delete("{m}")
