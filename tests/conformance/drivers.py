"""What the conformance suite drives: one interface, several implementations of the same rules.

To add one (an HTTP door, say), write a ``Driver`` and name it in ``conftest.py``; where it cannot be told the time, say
``moves_clock = False`` and the cases that need it are skipped.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import redis

from data_plane.store.keyspace import Keyspace
from data_plane.store.packing import Outcome, encode_check, encode_rule
from data_plane.store.script_host import ScriptHost
from data_plane.store.scripts import decide_script
from testing.packed import decode_reply
from tests.reference import State, decide
from tidegate.contract.limits import LimitRule

VIRTUAL_CLOCK = Path(__file__).with_name("virtual_clock.lua")


class Check(NamedTuple):
    """One decision: ``cost`` units for ``subject`` from every one of ``rules``, all or nothing."""

    subject: str
    rules: tuple[LimitRule, ...]
    cost: int


class Driver(Protocol):
    """Decides checks in order. Counters are named by subject and ``rule.id``, and are untouched at a test's start."""

    moves_clock: bool

    def decide(self, checks: Sequence[Check], now_us: int) -> list[list[Outcome]]:
        """Decide a batch at ``now_us`` (or now, where the clock cannot be moved): each check's outcomes, by limit."""
        ...


class PureDriver:
    """The pure rules over a store whose keys expire as in ``virtual_clock.lua``."""

    moves_clock = True

    def __init__(self) -> None:
        self._states: dict[tuple[str, int], tuple[State, int]] = {}

    def decide(self, checks: Sequence[Check], now_us: int) -> list[list[Outcome]]:
        return [self._decide(check, now_us) for check in checks]

    def _decide(self, check: Check, now_us: int) -> list[Outcome]:
        keys = [(check.subject, rule.id) for rule in check.rules]
        outcomes, stored = decide(check.rules, [self.state(key, now_us) for key in keys], check.cost, now_us)
        for key, kept in zip(keys, stored, strict=True):
            if kept is not None:
                ttl_ms = max(1, -(-(kept.forget_us - now_us) // 1000))
                self._states[key] = (kept.state, now_us // 1000 + ttl_ms)
        return outcomes

    def state(self, key: tuple[str, int], now_us: int) -> State | None:
        state, expires_ms = self._states.get(key, (None, 0))
        if state is not None and now_us // 1000 > expires_ms:
            return None
        return state


class MemoryDriver:
    """The scripts in this process, as nodes run them while their store is away."""

    moves_clock = True

    def __init__(self, host: ScriptHost) -> None:
        self._now_us = 0
        self._host = host
        self._keyspace = Keyspace(lambda: self._now_us, 10_000)

    def decide(self, checks: Sequence[Check], now_us: int) -> list[list[Outcome]]:
        self._now_us = now_us
        keys = [b"dirty", *(f"{{{check.subject}}}{rule.id}".encode() for check in checks for rule in check.rules)]
        arguments = [encode_check(check.cost, [encode_rule(rule) for rule in check.rules]) for check in checks]
        reply = self._host.run(self._keyspace, decide_script(), keys, arguments)
        store_now_us, outcomes = decode_reply(reply, [len(check.rules) for check in checks])
        assert store_now_us == now_us
        return outcomes


class LuaDriver:
    """The scripts on a real server, with the clock and the expiry of ``virtual_clock.lua``."""

    moves_clock = True

    def __init__(self, client: "redis.Redis", prefix: str = "") -> None:
        self._client = client
        self._prefix = prefix
        self._sha = client.script_load(VIRTUAL_CLOCK.read_text("utf-8") + decide_script())

    def decide(self, checks: Sequence[Check], now_us: int) -> list[list[Outcome]]:
        return self.replay([(checks, now_us)])[0]

    def replay(self, batches: Sequence[tuple[Sequence[Check], int]]) -> list[list[list[Outcome]]]:
        """Decide many batches, each at its time, in one round trip."""
        pipeline = self._client.pipeline(transaction=False)
        for checks, now_us in batches:
            keys = [b"dirty", *(self._key(check, rule) for check in checks for rule in check.rules)]
            arguments = [encode_check(check.cost, [encode_rule(rule) for rule in check.rules]) for check in checks]
            pipeline.evalsha(self._sha, len(keys), *keys, *arguments, now_us)
        answers = []
        for reply, (checks, now_us) in zip(pipeline.execute(), batches, strict=True):
            store_now_us, outcomes = decode_reply(reply, [len(check.rules) for check in checks])
            assert store_now_us == now_us
            answers.append(outcomes)
        return answers

    def _key(self, check: Check, rule: LimitRule) -> bytes:
        return f"{{{self._prefix}{check.subject}}}{rule.id}".encode()
