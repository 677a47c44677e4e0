"""Counters of every layout that was ever written are read, and the common ones stay short."""

import struct

import pytest
import redis

from data_plane.store.packing import Outcome
from tests.conformance.drivers import Check, LuaDriver
from tests.conformance.rules import DAY_US, HOUR_US, SECOND_US, START_US, rule

BASE_US = 1_672_531_200_000_000
NOW_US = START_US + 12_345_678_901
FULL_US = NOW_US + 7_200_000
"""When a bucket of one unit in 3.6 s is full again: two units are taken."""
BUCKET = rule("token_bucket", 1000, HOUR_US)
SLOW = rule("token_bucket", 100, DAY_US)
LOG = rule("sliding_log", 10, HOUR_US)


def seven(us: int) -> bytes:
    return us.to_bytes(7, "little")


def six(us: int) -> bytes:
    return us.to_bytes(6, "little")


def three(number: int) -> bytes:
    return number.to_bytes(3, "little")


BUCKETS = [
    b"\x20" + seven(NOW_US) + seven(7_200_000) + struct.pack("<III", 1, 3_600_000, 1000),
    b"\x22" + seven(NOW_US) + seven(7_200_000) + six(1) + six(3_600_000) + six(1000),
    b"\x26" + seven(FULL_US) + struct.pack("<I", 3_600_000) + three(1000),
    b"\x28" + six(FULL_US - BASE_US) + three(3_600_000) + three(1000),
    b"\x2a" + six(FULL_US - BASE_US) + struct.pack("<IH", 3_600_000, 1000),
]
ENTRY = seven(NOW_US - SECOND_US) + struct.pack("<H", 4)
LOGS = [b"\x30" + struct.pack("<I", 4) + ENTRY, b"\x34" + struct.pack("<H", 4) + ENTRY]


@pytest.fixture(params=["valkey", "redis"])
def client(request: pytest.FixtureRequest):
    with redis.Redis.from_url(request.getfixturevalue(f"{request.param}_server").url) as found:
        found.flushall()
        yield found


def put(client: "redis.Redis", value: bytes) -> None:
    client.set("{s}1", struct.pack("<d", NOW_US // 1000 + 10_000_000) + value)


def stored(client: "redis.Redis") -> bytes:
    return client.get("{s}1")[8:]


@pytest.mark.parametrize("value", BUCKETS)
def test_a_bucket_of_any_layout_is_the_same_bucket(client: "redis.Redis", value: bytes):
    put(client, value)
    driver = LuaDriver(client)
    peeked, taken = driver.decide([Check("s", (BUCKET,), 0), Check("s", (BUCKET,), 3)], NOW_US)
    assert peeked == [Outcome(True, 998, 7_200_000, 0, 0)]
    assert taken == [Outcome(True, 995, 18_000_000, 0, 0)]
    assert stored(client)[0] == 0x2A, "whatever it was, it is written in the usual layout"


@pytest.mark.parametrize("value", BUCKETS)
def test_a_bucket_of_any_layout_keeps_its_tokens_under_another_rule(client: "redis.Redis", value: bytes):
    put(client, value)
    ((outcome,),) = LuaDriver(client).decide([Check("s", (rule("token_bucket", 500, HOUR_US),), 0)], NOW_US)
    assert outcome.remaining == 500


@pytest.mark.parametrize("value", LOGS)
def test_a_log_of_any_layout_is_the_same_log(client: "redis.Redis", value: bytes):
    put(client, value)
    peeked, denied, taken = LuaDriver(client).decide([Check("s", (LOG,), cost) for cost in (0, 7, 6)], NOW_US)
    assert peeked == [Outcome(True, 6, HOUR_US - SECOND_US, 0, 0)]
    assert denied == [Outcome(False, 6, HOUR_US - SECOND_US, HOUR_US - SECOND_US, 0)]
    assert taken == [Outcome(True, 0, HOUR_US, 0, 0)]
    assert len(stored(client)) == len(value) + 9 - 2 * (value[0] == 0x30)


@pytest.mark.parametrize(
    "usual",
    [rule("fixed_window", 1000, HOUR_US), rule("sliding_window", 1000, HOUR_US), BUCKET, SLOW, LOG],
    ids=lambda usual: f"{usual.algorithm}-{usual.limit}",
)  # fmt: skip
def test_usual_counters_take_thirteen_bytes_at_most(client: "redis.Redis", usual):
    ((outcome,),) = LuaDriver(client).decide([Check("s", (usual,), 1)], NOW_US)
    assert outcome.allowed
    assert len(stored(client)) <= 13


def test_buckets_go_on_after_the_short_layouts_time_is_over(client: "redis.Redis"):
    end_us = BASE_US + 2**48
    driver = LuaDriver(client)
    for number, now_us in enumerate((end_us - 3_600_001, end_us - 1, end_us + HOUR_US)):
        ((outcome,),) = driver.decide([Check("s", (BUCKET,), 1)], now_us)
        assert outcome.remaining == 999
        assert len(stored(client)) == (13 if number == 0 else 33)
