"""On a real server's own clock: racing callers, keys that expire, and that the pure rules would have said the same."""

import asyncio

import pytest
import redis
import redis.asyncio

from data_plane.store.packing import encode_check, encode_rule
from data_plane.store.scripts import collect_script, decide_script, give_back_script, merge_script, unmark_script
from testing.packed import decode_reply
from tests.conformance.rules import HOUR_US, MINUTE_US, rule
from tests.reference import decide

ALGORITHMS = ["fixed_window", "sliding_window", "sliding_log", "token_bucket", "leaky_bucket"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_of_200_racing_calls_exactly_the_limit_pass(store_url: str, algorithm: str):
    limit = 99 if algorithm == "leaky_bucket" else 100  # a leaky bucket holds one more
    argument = encode_check(1, [encode_rule(rule(algorithm, limit, 366 * 24 * HOUR_US))])
    # A busy machine may take long to accept 200 connections.
    patience = {"socket_connect_timeout": 60, "socket_timeout": 60}
    clients = [redis.asyncio.Redis.from_url(store_url, **patience) for _ in range(20)]
    try:
        sha = await clients[0].script_load(decide_script())
        replies = await asyncio.gather(
            *(clients[i % 20].evalsha(sha, 2, b"{a}dirty", b"{a}1", argument) for i in range(200))
        )
    finally:
        for client in clients:
            await client.aclose()
    assert sum(decode_reply(reply, [1])[1][0][0].allowed for reply in replies) == 100


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_keys_expire_when_their_state_means_nothing(store_url: str, algorithm: str):
    limit = rule(algorithm, 10, MINUTE_US)
    with redis.Redis.from_url(store_url) as client:
        reply = client.eval(decide_script(), 2, b"{a}dirty", b"{a}1", encode_check(5, [encode_rule(limit)]))
        left_ms = client.pttl(b"{a}1")
        assert client.exists(b"{a}dirty") == 0
    now_us, outcomes = decode_reply(reply, [1])
    expected, stored = decide([limit], [None], 5, now_us)
    assert outcomes == [expected]
    assert stored[0] is not None
    life_ms = (stored[0].forget_us - now_us) / 1000
    assert life_ms - 1000 < left_ms <= life_ms + 1


def test_denied_and_peeked_checks_write_no_key(store_url: str):
    with redis.Redis.from_url(store_url) as client:
        for algorithm in ALGORITHMS:
            params = [encode_rule(rule(algorithm, 10, MINUTE_US)), encode_rule(rule("fixed_window", 0, MINUTE_US))]
            arguments = [encode_check(1, params), encode_check(0, params)]
            client.eval(decide_script(), 5, b"{a}dirty", *[b"{a}1", b"{a}2"] * 2, *arguments)
        assert client.dbsize() == 0


def test_state_of_another_algorithm_or_of_a_later_version_counts_as_none(store_url: str):
    with redis.Redis.from_url(store_url) as client:
        for algorithm in ALGORITHMS:
            for stored in (b"", b"\x7f", b"\x00rest", b"\x10" + b"\1" * 12, b"\x20" + b"\0" * 26, b"\x30" + b"\0" * 13):
                params = encode_rule(rule(algorithm, 10, MINUTE_US))
                client.set(b"{a}1", stored)
                reply = client.eval(decide_script(), 2, b"{a}dirty", b"{a}1", encode_check(1, [params]))
                assert decode_reply(reply, [1])[1][0][0].allowed


def test_every_script_states_its_contract_and_loads(store_url: str):
    scripts = [decide_script(), collect_script(), unmark_script(), merge_script(), give_back_script()]
    with redis.Redis.from_url(store_url) as client:
        for script in scripts:
            assert "\n-- KEYS[1]" in script
            assert "-- Reply" in script
            assert script.count("call('TIME')") == 1
            assert client.script_load(script)
