"""Counters in the node's own memory: the decide script over a bounded key space. Not thread-safe: one loop owns it."""

from collections.abc import Sequence
from typing import NamedTuple

from data_plane.store.keyspace import Keyspace
from data_plane.store.packing import Outcome, decode_reply, encode_check
from data_plane.store.script_host import ScriptHost
from data_plane.store.scripts import decide_script

_DIRTY = b"dirty"
"""Named to the script, which adds nothing: no counter here is shared."""


class LocalCheck(NamedTuple):
    """``cost`` units, all or nothing, from the counters ``keys`` under limits as ``encode_rule`` packs them."""

    keys: Sequence[bytes]
    params: Sequence[bytes]
    cost: int


class LocalCounters:
    """At most ``max_keys`` counters; the least recently used give way."""

    def __init__(self, host: ScriptHost, max_keys: int) -> None:
        self._host = host
        self._now_us = 0
        self._keyspace = Keyspace(self._clock_us, max_keys)
        self._script = decide_script()

    def __len__(self) -> int:
        return len(self._keyspace)

    def check_all(self, checks: Sequence[LocalCheck], now_us: int) -> list[list[Outcome]]:
        """Decide in order, in one call of the script. Raises ``ScriptError`` where a check cannot be decided."""
        return self._decide(self._keyspace, checks, now_us)

    def check(self, keys: Sequence[bytes], params: Sequence[bytes], cost: int, now_us: int) -> list[Outcome]:
        """Decide one check."""
        return self.check_all([LocalCheck(keys, params, cost)], now_us)[0]

    def state(self, key: bytes) -> bytes | None:
        """A counter as it is stored; reading it does not count as use."""
        return self._keyspace.peek(key)

    def remaining(self, states: Sequence[tuple[bytes, bytes]], now_us: int) -> list[int]:
        """The units left of counters in these states, by (params, state)."""
        self._now_us = now_us
        shown = Keyspace(self._clock_us, max(1, len(states)))
        keys = [b"%d" % number for number in range(len(states))]
        for key, (_, state) in zip(keys, states, strict=True):
            shown.execute(b"SET", key, state)
        checks = [LocalCheck([key], [params], 0) for key, (params, _) in zip(keys, states, strict=True)]
        return [outcome.remaining for (outcome,) in self._decide(shown, checks, now_us)]

    def _decide(self, keyspace: Keyspace, checks: Sequence[LocalCheck], now_us: int) -> list[list[Outcome]]:
        self._now_us = now_us
        keys = [_DIRTY]
        for check in checks:
            keys += check.keys
        arguments = [encode_check(check.cost, check.params) for check in checks]
        reply = self._host.run(keyspace, self._script, keys, arguments)
        return decode_reply(reply, [len(check.keys) for check in checks])[1]

    def _clock_us(self) -> int:
        return self._now_us
