"""Measures what one limit's state takes in the store, at a million subjects: value, key, expiry and their index."""

from collections.abc import Callable

import redis

from data_plane.store.packing import encode_check
from data_plane.store.scripts import decide_script
from tidegate.contract.limits import Algorithm
from tidegate.stack.store import StoreServer
from tools.bench.errors import BenchError
from tools.bench.machine import bound_to
from tools.bench.place import Place
from tools.bench.results import MemoryRun
from tools.bench.script_part import DIRTY_KEY
from tools.bench.store_counts import empty, store_client
from tools.bench.store_rules import ALGORITHMS, LASTING_COST, USUAL_NAME_LENGTH, bound_limit, counter_key

KEYS = 1_000_000
KEYS_QUICK = 100_000
KEYS_A_CALL = 500
OTHER_NAME_LENGTHS = (8, 12, 36)

Report = Callable[[MemoryRun], None]


def measure_memory(server: StoreServer, name: str, place: Place, keys: int, report: Report) -> None:
    """Fill the store with each algorithm in turn, one decision a subject; allocators round up, so names matter."""
    with store_client(server.url) as client, bound_to(place.cores.server):
        sha = str(client.script_load(decide_script()))
        for algorithm in ALGORITHMS:
            report(_fill(client, sha, name, algorithm, keys, USUAL_NAME_LENGTH))
        for length in OTHER_NAME_LENGTHS:
            report(_fill(client, sha, name, "sliding_window", keys, length))
        empty(client)


def _fill(client: redis.Redis, sha: str, name: str, algorithm: Algorithm, keys: int, name_length: int) -> MemoryRun:
    empty(client)
    limit = bound_limit(algorithm)
    checks = [encode_check(LASTING_COST, [limit.params])] * KEYS_A_CALL
    before = client.info("memory")
    for start in range(0, keys, KEYS_A_CALL):
        names = [counter_key(limit, number, name_length) for number in range(start, start + KEYS_A_CALL)]
        client.evalsha(sha, KEYS_A_CALL + 1, DIRTY_KEY, *names, *checks)
    stored = client.dbsize()
    if stored != keys:
        raise BenchError(f"{algorithm}: {stored} keys where {keys} were written")
    after = client.info("memory")
    return MemoryRun(
        server=name, algorithm=algorithm, keys=keys, name_length=name_length,
        key_bytes=len(counter_key(limit, 0, name_length)),
        bytes_a_limit=(after["used_memory"] - before["used_memory"]) / keys, allocator=str(after["mem_allocator"]),
    )  # fmt: skip
