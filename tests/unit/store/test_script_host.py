"""The scripts' host in this process: Lua as Redis has it, and replies as Redis converts them."""

import struct

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from lupa import lua51

from data_plane.store.keyspace import Keyspace
from data_plane.store.script_host import ScriptError, ScriptHost

HOSTS = [ScriptHost(), ScriptHost(lua51)]
HOST = HOSTS[0]
EMPTY = Keyspace(lambda: 1_700_000_000_123_456, 100)
CASES = [
    "return 3.99",
    "return -3.99",
    "return 'x'",
    "return nil",
    "return false",
    "return true",
    "return { 1, 'a', 2.5, { 'b' }, nil, 4 }",
    "return redis.call('GET', 'none')",
    "return redis.call('SET', 'a', 12, 'PX', 1000) and 1",
    "redis.call('SET', 'a', 'b') return redis.call('SET', 'a', 'c', 'NX', 'PX', 1000) and 1 or 0",
    "redis.call('SET', 'a', 'b', 'PX', 5000) redis.call('SET', 'a', 'c', 'KEEPTTL') return redis.call('PTTL', 'a') > 1",
    "redis.call('SET', 'a', 'b') return redis.call('PTTL', 'a')",
    "return redis.call('PTTL', 'none')",
    "return redis.call('HSET', 'h', 'a', 1, 'b', 2.5)",
    "redis.call('HSET', 'h', 'a', 1) return { redis.call('HGET', 'h', 'a'), redis.call('HGET', 'h', 'b') == false }",
    "redis.call('HSET', 'h', 'a', 1) return redis.call('HMGET', 'h', 'a', 'b', 'a')",
    "return redis.call('HMGET', 'none', 'a')",
    "redis.call('HSET', 'h', 'a', 1) return redis.call('HSETNX', 'h', 'a', 3) + redis.call('HSETNX', 'h', 'c', 3)",
    "redis.call('HSET', 'h', 'a', 1) return redis.call('HDEL', 'h', 'a', 'b')",
    "return redis.call('ZADD', 'z', 'NX', 1700000000123456, 'm')",
    "redis.call('ZADD', 'z', 5, 'b', 5, 'a', 2, 'c') return redis.call('ZRANGE', 'z', 0, -1, 'WITHSCORES')",
    "redis.call('ZADD', 'z', 5, 'b', 7, 'a') return redis.call('ZRANGEBYSCORE', 'z', '-inf', '(7', 'LIMIT', 0, 5)",
    "redis.call('ZADD', 'z', 5, 'b') return redis.call('ZREM', 'z', 'b', 'c') + redis.call('EXISTS', 'z')",
    "return redis.error_reply('REFUSED by the script')",
    "return { KEYS[1], ARGV[1], ARGV[2], #KEYS, #ARGV }",
    "error('of its own')",
    "return redis.call('GET', 'h') == redis.call('HSET', 'h', 'a', 1)",
    "redis.call('HSET', 'h', 'a', 1) return redis.call('GET', 'h')",
    "return redis.call('GET', KEYS[1])",
    "redis.call('SET', KEYS[1], 'a', 'PX', 1000) return redis.call('MGET', KEYS[1], 'b')",
    "redis.call('SET', KEYS[1], 'a', 'PX', 1000) redis.call('DEL', KEYS[1]) return redis.call('GET', KEYS[1])",
    "redis.call('SET', KEYS[1], 12, 'PX', 1000) return redis.call('GET', KEYS[1])",
    "redis.call('SET', KEYS[1], 'a', 'PX', '1000') redis.call('SET', KEYS[1], 'b') return redis.call('PTTL', KEYS[1])",
    "return redis.call('SET', KEYS[1], 'a', 'PX', 0)",
    "redis.call('HSET', KEYS[1], 'a', 1) return redis.call('GET', KEYS[1])",
]


@pytest.mark.parametrize("source", CASES)
def test_answers_as_a_server_does(valkey_url: str, source: str):
    keys, arguments = [b"k"], [b"1", 2.5]
    with redis.Redis.from_url(valkey_url) as client:
        try:
            expected = client.eval(source, 1, *keys, *arguments)
        except redis.ResponseError:
            expected = ScriptError
    for host in HOSTS:
        keyspace = Keyspace(lambda: 1_700_000_000_123_456, 100)
        try:
            found = host.run(keyspace, source, keys, arguments)
        except ScriptError:
            found = ScriptError
        assert found == expected


NUMBERS = {
    "B": st.integers(0, 255),
    "H": st.integers(0, 2**16 - 1),
    "d": st.floats(allow_nan=False),
    **{f"I{size}": st.integers(0, min(2**53, 2 ** (8 * size)) - 1) for size in range(1, 9)},
    **{
        f"i{size}": st.integers(-min(2**53, 2 ** (8 * size - 1)), min(2**53, 2 ** (8 * size - 1)) - 1)
        for size in range(1, 9)
    },
}
ITEMS = st.sampled_from(sorted(NUMBERS)).flatmap(lambda name: st.tuples(st.just(name), NUMBERS[name]))


def packed(order: str, item: tuple[str, float]) -> bytes:
    name, number = item
    if name == "d":
        return struct.pack(order + "d", number)
    size = {"B": 1, "H": 2}.get(name) or int(name[1:])
    return int(number).to_bytes(size, "little" if order == "<" else "big", signed=name[0] == "i")


def lua_number(number: float) -> str:
    return repr(number).replace("inf", "(1/0)")


@given(st.sampled_from("<>"), st.lists(ITEMS, min_size=1, max_size=6))
def test_numbers_are_packed_as_c_packs_them(order, items):
    layout = order + "".join(name for name, _ in items)
    values = ", ".join(lua_number(number) for _, number in items)
    whole = b"".join(packed(order, item) for item in items)
    assert HOST.run(EMPTY, f"return struct.pack('{layout}', {values})", [], []) == whole
    again = f"return struct.pack('{layout}', struct.unpack('{layout}', ARGV[1], 3))"
    assert HOST.run(EMPTY, again, [], [b"xx" + whole]) == whole
    assert HOST.run(EMPTY, f"return select('#', struct.unpack('{layout}', ARGV[1]))", [], [whole]) == len(items) + 1


def test_a_text_that_is_too_short_is_an_error():
    with pytest.raises(ScriptError, match="too short"):
        HOST.run(EMPTY, "return struct.unpack('<I4', 'abc')", [], [])


@pytest.mark.parametrize("host", HOSTS)
def test_what_was_set_before_an_error_stays_and_a_hash_is_no_string(host: ScriptHost):
    keyspace = Keyspace(lambda: 1_700_000_000_123_456, 10_000)
    with pytest.raises(ScriptError, match="of its own"):
        host.run(keyspace, "redis.call('SET', KEYS[1], 'a', 'PX', 1000) error('of its own')", [b"k"], [])
    assert keyspace.execute("GET", b"k") == b"a"
    keyspace.execute("HSET", b"h", b"a", b"1")
    with pytest.raises(ScriptError, match="WRONGTYPE"):
        host.run(keyspace, "return redis.call('GET', KEYS[1])", [b"h"], [])


@pytest.mark.parametrize("number", [1, 300, 3_000])
@pytest.mark.parametrize("host", HOSTS)
def test_hands_over_any_number_of_keys_values_and_arguments(host: ScriptHost, number: int):
    keyspace = Keyspace(lambda: 1_700_000_000_123_456, 10_000)
    keys = [b"%d" % at for at in range(number)]
    source = (
        "for i = 1, #KEYS do redis.call('SET', KEYS[i], (redis.call('GET', KEYS[i]) or '') .. ARGV[i], 'PX', i) end"
    )
    for text in (b"a", b"b"):
        host.run(keyspace, source, keys, [text + key for key in keys])
    assert [keyspace.execute("GET", key) for key in keys] == [b"a" + key + b"b" + key for key in keys]
    assert keyspace.execute("PTTL", keys[-1]) == number


def test_no_time_passes_within_a_script():
    ticks = iter(range(1_000_000, 9_000_000, 1_000_000))
    keyspace = Keyspace(lambda: next(ticks), 10)
    source = "local a, b = redis.call('TIME'), redis.call('TIME') return a[1] == b[1]"
    assert HOST.run(keyspace, source, [], []) == 1


def test_a_key_expires_after_its_last_millisecond_and_is_there_again_for_a_clock_that_steps_back():
    now_us = [5_000_000]
    keyspace = Keyspace(lambda: now_us[0], 10)
    keyspace.execute("SET", b"a", b"1", "PX", 10)
    now_us[0] = 5_010_999
    assert keyspace.execute("GET", b"a") == b"1"
    now_us[0] += 1
    assert keyspace.execute("GET", b"a") is False
    now_us[0] -= 1
    assert keyspace.execute("GET", b"a") == b"1"


def test_scans_in_pages():
    keyspace = Keyspace(lambda: 0, 100)
    for number in range(25):
        keyspace.execute("SET", b"{%d}" % number, b"")
    keyspace.execute("SET", b"other", b"")
    cursor, seen = keyspace.scan(0, "{*", 10)
    while cursor:
        cursor, more = keyspace.scan(cursor, "{*", 10)
        seen += more
    assert sorted(seen) == sorted(b"{%d}" % number for number in range(25))
