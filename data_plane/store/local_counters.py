"""Counters in the node's own memory: the decide script over a bounded key space. Not thread-safe: one loop owns it."""

from collections.abc import Sequence

from data_plane.store.keyspace import Keyspace
from data_plane.store.packing import FIGURES, Outcome, decode_figures, encode_check, outcomes_of
from data_plane.store.script_host import ScriptHost
from data_plane.store.scripts import decide_script

_DIRTY = b"dirty"
"""The dirty key that the script expects. It stays empty, as no counter here is shared."""


class LocalCounters:
    """At most ``max_keys`` counters; the least recently used give way."""

    def __init__(self, host: ScriptHost, max_keys: int) -> None:
        self._host = host
        self._now_us = 0
        self._keyspace = Keyspace(self._clock_us, max_keys)
        self._script = decide_script()

    def __len__(self) -> int:
        return len(self._keyspace)

    def decide(self, keys: Sequence[bytes], checks: Sequence[bytes], now_us: int) -> tuple[int, ...]:
        """Decide checks that ``encode_check`` packed, in order, in one call of the script: its reply as it is.

        ``keys`` are the counters of all limits of all checks. Raises ``ScriptError`` where a check cannot be decided.
        """
        return self._decide(self._keyspace, keys, checks, now_us)

    def check(self, keys: Sequence[bytes], params: Sequence[bytes], cost: int, now_us: int) -> list[Outcome]:
        """Decide one check."""
        return outcomes_of(self.decide(keys, [encode_check(cost, params)], now_us), 1, len(keys))

    def state(self, key: bytes) -> bytes | None:
        """A counter as it is stored; reading it does not count as use."""
        return self._keyspace.peek(key)

    def remaining(self, states: Sequence[tuple[bytes, bytes | None]], now_us: int) -> list[int]:
        """The units left of counters in these states, by (params, state); ``None``: untouched."""
        self._now_us = now_us
        shown = Keyspace(self._clock_us, max(1, len(states)))
        keys = [b"%d" % number for number in range(len(states))]
        for key, (_, state) in zip(keys, states, strict=True):
            if state is not None:
                shown.execute(b"SET", key, state)
        checks = [encode_check(0, [params]) for params, _ in states]
        return list(self._decide(shown, keys, checks, now_us)[1::FIGURES])

    def _decide(
        self, keyspace: Keyspace, keys: Sequence[bytes], checks: Sequence[bytes], now_us: int
    ) -> tuple[int, ...]:  # fmt: skip
        self._now_us = now_us
        return decode_figures(self._host.run(keyspace, self._script, [_DIRTY, *keys], checks))

    def _clock_us(self) -> int:
        return self._now_us
