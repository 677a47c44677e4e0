"""What servers say: error replies, redirects, slot maps and INFO."""

from binascii import crc_hqx

import pytest

from data_plane.store.redis.server import StoreMisconfiguredError, read_info, require_fit
from data_plane.store.redis.slots import SLOTS, read_redirect, read_slots, slot_tags
from data_plane.store.redis.status import FAULTS, REASONS, SCRIPT_ERROR, classify


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("READONLY You can't write against a read only replica.", "read_only"),
        ("LOADING Valkey is loading the dataset in memory", "loading"),
        ("OOM command not allowed when used memory > 'maxmemory'. script: a, on @user_script:1.", "out_of_memory"),
        ("ERR Error running script (call to f_a): @user_script:1: -OOM command not allowed when", "out_of_memory"),
        ("MASTERDOWN Link with MASTER is down", "master_down"),
        ("CLUSTERDOWN Hash slot not served", "cluster_down"),
        ("BUSY Redis is busy running a script.", "busy"),
        ("NOPERM No permissions to access a key", "no_permission"),
        ("NOAUTH Authentication required.", "no_permission"),
        ("WRONGTYPE Operation against a key", "script_error"),
        ("ERR user_script:3: attempt to index a nil value - A-B", "script_error"),
        ("", "script_error"),
    ],
)
def test_error_replies_have_a_reason_from_the_closed_set(message: str, reason: str) -> None:
    assert classify(message).reason == reason
    assert reason in REASONS


def test_only_a_server_that_cannot_be_the_right_one_is_left() -> None:
    leave = {code for code, fault in FAULTS.items() if fault.reconnect}
    assert leave == {"READONLY", "MASTERDOWN", "NOAUTH", "WRONGPASS", "UNBLOCKED"}
    assert not SCRIPT_ERROR.reconnect


def test_redirects_name_slot_and_address() -> None:
    assert read_redirect("MOVED 3999 10.0.0.1:6381", "h") == (3999, ("10.0.0.1", 6381))
    assert read_redirect("ASK 1 fd00::1:6381", "h") == (1, ("fd00::1", 6381))
    assert read_redirect("MOVED 3999 :6381", "h") == (3999, ("h", 6381))


def test_a_server_that_does_not_know_its_address_is_the_one_that_was_asked() -> None:
    reply = [[0, 99, [b"10.0.0.1", 1, b"id"], [b"10.0.0.2", 2, b"id"]], [100, 200, [b"", 3]], [201, 300, [None, 4]]]
    assert [tuple(found) for found in read_slots(reply, "h")] == [
        (0, 99, "10.0.0.1", 1),
        (100, 200, "h", 3),
        (201, 300, "h", 4),
    ]


def test_every_slot_has_a_tag_that_hashes_to_it() -> None:
    tags = slot_tags()
    assert [crc_hqx(tag, 0) % SLOTS for tag in tags] == list(range(SLOTS))
    assert max(map(len, tags)) <= 4


@pytest.mark.parametrize(
    ("info", "complaint"),
    [
        ("redis_version:6.2.14\nmaxmemory_policy:noeviction", None),
        ("redis_version:7.2.4\nvalkey_version:8.0.1\nmaxmemory_policy:noeviction", None),
        ("redis_version:7.2.4\nvalkey_version:7.2.5\nmaxmemory_policy:noeviction", "too old"),
        ("redis_version:6.0.16\nmaxmemory_policy:noeviction", "too old"),
        ("redis_version:7.0.15\nmaxmemory_policy:volatile-ttl", "noeviction"),
        ("redis_version:7.0.15", None),
        ("", None),
    ],
)
def test_a_server_that_must_not_hold_counters_is_refused(info: str, complaint: str | None) -> None:
    if complaint is None:
        require_fit(read_info(info))
    else:
        with pytest.raises(StoreMisconfiguredError, match=complaint):
            require_fit(read_info(info))


def test_info_is_read() -> None:
    facts = read_info(
        "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\nrole:master\r\nused_memory:12\r\nmaxmemory:99\r\n"
    )
    assert (facts.run_id, facts.role, facts.used_memory, facts.maxmemory) == ("abc", "master", 12, 99)
