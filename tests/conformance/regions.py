"""A region's counters of one limit, for tests of what regions tell each other: the scripts on a real server."""

import struct
from collections.abc import Sequence
from secrets import token_bytes

import msgspec
import redis

from data_plane.config.limit_resolution import RegionFacts, shared_params
from data_plane.config.strict_limits import strict_params_of
from data_plane.replicate.peer_session import encode_counts
from data_plane.store.packing import Outcome, encode_check, encode_rule
from data_plane.store.scripts import (
    charge_script,
    collect_script,
    decide_script,
    give_back_script,
    mark_script,
    merge_script,
    unmark_script,
)
from data_plane.store.strict_packing import Marker
from data_plane.store.subjects import give_back_key
from testing.packed import decode_reply, encode_marker
from tests.conformance.drivers import VIRTUAL_CLOCK
from tidegate.contract.counts import SLICES, Cell, Counts
from tidegate.contract.limits import LimitRule

RESEND_US = 3_000_000


class Region:
    """One region with its own clock; ``rule`` may be changed."""

    def __init__(self, client: "redis.Redis", name: str, rule: LimitRule, now_us: int, regions: int = 2) -> None:
        self.name = name
        self.rule = rule
        self.now_us = now_us
        self.key = f"{{{name}}}1".encode()
        self.dirty = f"{{{name}}}dirty".encode()
        self.slice = self.dirty + b"%d" % (sum(self.key) % SLICES)
        self.region_facts = RegionFacts()
        self.peers = ("east", "west", "south")[:regions]
        self._client = client
        self._regions = regions
        self._collections = self._collected_us = 0
        self.most_over = 0
        """By how much the last merge found the counter over its limit."""

    def join(self) -> None:
        """Put a marker into the store: without one it refuses strict limits."""
        never = b"\x00\x00\x00\x00\x00\x00\xf0\x7f"  # when it expires by the virtual clock
        self._client.set(self.dirty + b"!m", never + encode_marker(Marker(1, 0, 0, "run")))

    def hit(self, cost: int) -> Outcome:
        return self.step(self._params, cost)

    def step(self, item: bytes, cost: int = 0) -> Outcome:
        """Take a step of a transfer, or decide."""
        reply = self._run(decide_script(), [self.dirty, self.key], [encode_check(cost, [item])])
        return decode_reply(reply, [1])[1][0][0]

    def left(self) -> int:
        return self.hit(0).remaining

    def is_dirty(self) -> bool:
        return self._client.zscore(self.slice, self.key) is not None

    def due_us(self) -> int | None:
        """When the counter's news is due, or may be sent again."""
        score = self._client.zscore(self.slice, self.key)
        return None if score is None else int(score)

    def collect(self) -> tuple[Cell, ...]:
        """Take the counter's cells, due or not."""
        self._run(mark_script(), [self.dirty, self.key], [])
        return self.collect_due()

    def collect_due(self) -> tuple[Cell, ...]:
        """Take the counter's cells if they are due."""
        self._collections += 1
        _, self._collected_us, counters, number, cells, _ = self._run(
            collect_script(), [self.slice], [10, RESEND_US + self._collections]
        )
        assert counters <= 1
        head = Counts(region=self.name, incarnation="1", sent_at=0)
        return msgspec.msgpack.decode(encode_counts(head, [cells], number), type=Counts).cells

    def unmark(self) -> int:
        """Every peer has what was last collected."""
        return self._run(unmark_script(), [self.slice], [self._collected_us, 0])

    def merge(self, peer: str, cells: Sequence[Cell]) -> str:
        packed = b"".join(struct.pack("<qqq", cell.window, cell.taken, cell.returned) for cell in cells)
        reply = self._run(merge_script(), [self.dirty, self.key], [peer, self._regions, self._params + packed])
        _, self.most_over = struct.unpack("<qq", reply[1:])
        return {b"0": "known", b"1": "merged", b"2": "ahead"}[reply[:1]]

    def give_back(self, cost: int, charged_us: int, id: bytes | None = None) -> int:
        """``id`` names the give-back; each is another unless a test says so."""
        own = give_back_key(self.key, id or token_bytes(8))
        arguments = [charged_us, encode_check(cost, [self._params]), 60_000]
        return self._run(give_back_script(), [self.dirty, own, self.key], arguments)

    def charge(self, cost: int) -> int:
        """Consume without a check, as what a reservation cost beyond its estimate."""
        own = give_back_key(self.key, token_bytes(8))
        return self._run(charge_script(), [self.dirty, own, self.key], [60_000, struct.pack("<d", cost) + self._params])

    @property
    def _params(self) -> bytes:
        if self.rule.mode == "strict":
            return strict_params_of(self.rule, self.name, self.region_facts.revision).decide()
        if self.rule.mode == "shared":
            return shared_params(self.rule, self.region_facts, dict.fromkeys(self.peers))
        return encode_rule(self.rule)

    def _run(self, script: str, keys: Sequence[bytes], arguments: Sequence[bytes | int | str]):
        script = VIRTUAL_CLOCK.read_text("utf-8") + script
        return self._client.eval(script, len(keys), *keys, *arguments, self.now_us)
