"""The scripts do to strict counters what the pure steps do, on a real Valkey, over random histories."""

import random
import struct
from importlib.resources import files
from typing import Any

import pytest
import redis

from contract.limits import BUCKET_ALGORITHMS, Algorithm, LimitRule, capacity, reduced_rate
from data_plane.domain.outcome import NEVER, Outcome
from data_plane.domain.regions import loans, rights, transfers
from data_plane.domain.regions.book import EMPTY, NOTHING, Gift
from data_plane.domain.regions.frame import frame_of, id_at, start_us
from data_plane.domain.regions.marker import Marker
from data_plane.domain.regions.messages import Ask, Give
from data_plane.domain.regions.quotas import Quota
from data_plane.domain.regions.rules import ALL_RULES, Timing
from data_plane.domain.regions.terms import NO_ID, Terms, quiet_id
from data_plane.domain.regions.wire import (
    LOW,
    REFUSED,
    StrictTerms,
    decode_marker,
    encode_marker,
    received,
    strict_terms,
)
from lua import STRICT
from tests.conformance.drivers import VIRTUAL_CLOCK
from tidegate.simulate.store import SimulatedStore

HISTORIES, STEPS = 100, 60
PEERS = [("west", 1), ("west", 2), ("south", 1)]
INCARNATION, REVISION = 3, 7
TIMING = Timing(epoch_floor_us=20_000_000)
ENTRY = """
local rule, size, step, _, from = unpack('<Bddd', ARGV[1])
local wait, left, reset, left_after, reset_after, value, ttl =
  strict(KEYS[2], rule % 8, step, sub(ARGV[1], from), tonumber(ARGV[2]), KEYS[1])
if value then
  call('SET', KEYS[2], value, 'PX', ttl)
  left, reset = left_after, reset_after
end
return pack('<i8i8i8', left, reset, wait)
"""
"""One item, decided or taken as a step, as decide.lua does it."""


def script() -> str:
    parts = ("prelude", "windows", *STRICT)
    return "\n".join((files("lua") / f"{part}.lua").read_text("utf-8") for part in parts) + ENTRY


def outcome_of(reply: bytes) -> Outcome:
    left, reset, wait = struct.unpack("<qqq", reply)
    if wait >= 0:
        return Outcome(True, left, reset, 0, wait)
    return Outcome(False, left, reset, NEVER if wait == -1 else -1 - wait, 0)


class PureSteps:
    """The pure steps over a store that expires keys as Redis does: in whole milliseconds, after the last has passed."""

    def __init__(self, terms: Terms) -> None:
        self.store = SimulatedStore("run", "noeviction")
        self.terms = terms
        self.is_bucket = terms.algorithm in BUCKET_ALGORITHMS

    def __call__(self, now_us: int, step: tuple[Any, ...]) -> tuple[Any, ...]:
        terms, name = self.terms, ("counter", 0)
        state, book = self.store.hot.get(name, (None, 0))[0], self.store.books.get(name, EMPTY)
        if name in self.store.hot and now_us // 1000 > self.store.hot[name][1]:
            state = None
        what, *rest = step
        if what == "decide":
            found: Any = (loans.decide_loan if self.is_bucket else rights.decide)(terms, state, rest[0], now_us)
            self._save(found.state, None, now_us)
            return found.allowed, found.remaining, found.low, getattr(found, "delay_us", 0)
        if what == "give":
            peer, incarnation, id, to_incarnation, known, have, rate = rest
            ask = Ask("counter", 0, 0, id, peer, incarnation, to_incarnation, known, have, rate, 0)
            given: Any = (loans.give_loan if self.is_bucket else transfers.give)(terms, state, book, ask, now_us)
            if given.book.given != book.given:
                self._save(given.state, given.book, now_us)
            return given.answer.total, given.answer.have, given.answer.is_empty
        if what == "receive":
            cost, peer, incarnation, to, id, total = rest
            answer = Give("counter", 0, id, peer, incarnation, to, total, 0, False, 0, 0)
            taken: Any = (loans.receive_loan if self.is_bucket else transfers.receive)(
                terms, state, book, answer, cost, now_us
            )
            if taken is None:
                return (False,)
            if taken.gained:
                self._save(taken.state, taken.book, now_us)
            return True, taken.gained, taken.have, taken.low
        if what == "basis":
            basis = (loans.loan_basis if self.is_bucket else transfers.basis)(terms, state, book, rest[0], now_us)
            return basis.id, basis.have, basis.rate, basis.low
        peer, incarnation, id = rest
        return (self.store.books.get(name, EMPTY).received.get((peer, incarnation, id), NOTHING),)

    def _save(self, state: Any, book: Any, now_us: int) -> None:
        if state is not None:
            forget_us = (loans.forget_loan_us if self.is_bucket else rights.forget_us)(self.terms, state)
            ttl_ms = max(1, -(-(forget_us - now_us) // 1000))
            self.store.save(("counter", 0), state, book, now_us // 1000 + ttl_ms)


def item_of(terms: StrictTerms, step: tuple[Any, ...]) -> bytes:
    what, *rest = step
    match what:
        case "decide":
            return terms.decide()
        case "give":
            return terms.give(*rest)
        case "receive":
            return terms.receive(*rest[1:])
        case "basis":
            return terms.basis()
    return terms.known(*rest)


def seen(step: tuple[Any, ...], outcome: Outcome) -> tuple[Any, ...]:
    """A script's outcome in the words of ``PureSteps``."""
    flag = outcome.reset_us >= LOW
    match step[0]:
        case "decide":
            return outcome.allowed, outcome.remaining, flag, outcome.delay_us
        case "give":
            return Gift(outcome.remaining, outcome.delay_us), outcome.reset_us // 4, bool(outcome.reset_us % 2)
        case "receive":
            taken = received(outcome)
            return (True, taken.gained, taken.have, taken.low) if taken.taken else (False,)
        case "basis":
            have, low = divmod(outcome.remaining, 2)
            return outcome.delay_us, have, outcome.reset_us, bool(low)
    return (Gift(outcome.remaining, outcome.reset_us),)


def setting(chance: random.Random) -> tuple[LimitRule, Terms, StrictTerms, Marker, int]:
    """A strict limit in one region, as the pure steps and as the scripts take it, and when it begins."""
    rule = LimitRule(
        id=1,
        name="x",
        algorithm=chance.choice(["fixed_window", "sliding_window", "sliding_log", "token_bucket", "leaky_bucket"]),
        limit=chance.choice([10, 1000]),
        window_us=chance.choice([3_000_000, 10_000_000, 7_333_000]),
    )
    frame = frame_of(rule, TIMING)
    now_us = 1_700_000_000_000_000 + chance.randrange(100_000_000)
    first = id_at(frame, now_us)
    share = capacity(rule) // 2
    schedule = (Quota(NO_ID, share, rule.limit), Quota(first + 2, share // chance.choice([1, 2, 5]), rule.limit))
    marker = Marker(INCARNATION, now_us - chance.randrange(30_000_000), REVISION, "run")
    is_older = chance.random() < 0.4
    # without a size: a part of a bucket that cannot be lent of
    bucket = (*reduced_rate(rule.limit, rule.window_us or 1), capacity(rule) * (chance.random() < 0.8))
    birth_us = marker.birth_us if is_older else 0
    terms = Terms(
        algorithm=rule.algorithm,
        frame=frame,
        schedule=schedule,
        incarnation=INCARNATION,
        quiet_id=quiet_id(frame, birth_us, TIMING.skew_us, ALL_RULES),
        birth_us=birth_us,
        horizon_us=chance.choice([0, 600_000]),
        rate=bucket[0],
        unit=bucket[1],
        size=bucket[2],
        region="east",
    )
    since_us = marker.birth_us + TIMING.skew_us - (1 if is_older else 0)
    packed = strict_terms(
        rule.algorithm, rule.limit, frame, bucket, schedule,
        skew_us=TIMING.skew_us, since_us=since_us, revision=REVISION,
    )  # fmt: skip
    return rule, terms, packed, marker, now_us


def history(chance: random.Random, rule: LimitRule, terms: Terms, now_us: int) -> list[tuple[int, tuple[Any, ...]]]:
    """Times and steps: clocks that step back, gifts that come late or twice, questions that know too little."""
    totals: dict[tuple[str, int, int], Gift] = {}
    found: list[tuple[int, tuple[Any, ...]]] = []
    most = capacity(rule)
    for _ in range(STEPS):
        now_us += chance.choice([0, 1_000, 90_000, 400_000, 2_000_000, -300_000, 9_000_000])
        id = id_at(terms.frame, now_us)
        if chance.random() < 0.2:
            now_us = start_us(terms.frame, id + 1) - chance.randrange(1_200_000)
        peer, incarnation = chance.choice(PEERS)
        id = id_at(terms.frame, now_us) + chance.choice([0, 0, 0, 1, -1])
        to = chance.choice([0, INCARNATION, INCARNATION])
        what = chance.randrange(9)
        life = (peer, incarnation, id)
        step: tuple[Any, ...]
        match what:
            case 0 | 1 | 2 | 3:
                step = ("decide", chance.choice([0, 1, 1, 2, most // 5]))
            case 4:
                known = Gift(chance.choice([0, 0, most // 4]))
                step = ("give", *life, to, known, chance.randrange(most), chance.choice([0, 1, 40]))
            case 5 | 6:
                before = totals.get(life, NOTHING)
                more = chance.randrange(most // 5)
                quanta = more * terms.unit * terms.size if terms.algorithm in BUCKET_ALGORITHMS else 0
                totals[life] = Gift(before.units + more, before.quanta + quanta)
                cost = chance.choice([1, most // 4])
                step = ("receive", cost, peer, incarnation, to, id, chance.choice([totals[life], before]))
            case 7:
                step = ("known", *life)
            case _:
                step = ("basis", chance.choice([1, most // 4]))
        found.append((now_us, step))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_scripts_agree_with_the_pure_steps(valkey_server: Any, seed: int):
    chance = random.Random(seed)
    never = b"\x00\x00\x00\x00\x00\x00\xf0\x7f"  # when a key expires by the virtual clock
    with redis.Redis.from_url(valkey_server.url) as client:
        sha = client.script_load(VIRTUAL_CLOCK.read_text("utf-8") + script())
        client.set("tg:region:state", never)  # an agent is there to be told what is low
        for number in range(HISTORIES):
            rule, terms, packed, marker, begins_us = setting(chance)
            steps = history(chance, rule, terms, begins_us)
            key = f"{{{seed}-{number}}}"
            client.set(f"{key}!m", never + encode_marker(marker, terms.horizon_us))
            pipeline = client.pipeline(transaction=False)
            for now_us, step in steps:
                pipeline.evalsha(sha, 2, key, f"{key}c", item_of(packed, step), _cost_of(step), now_us)
            pure = PureSteps(terms)
            for at, ((now_us, step), raw) in enumerate(zip(steps, pipeline.execute(), strict=True)):
                expected = pure(now_us, step)
                if step[0] == "decide" and not terms.horizon_us:  # there is no peer to be asked
                    expected = (*expected[:2], False, expected[3])
                assert seen(step, outcome_of(raw)) == expected, (seed, number, at, rule.algorithm, step, now_us)
        client.flushall()


def _cost_of(step: tuple[Any, ...]) -> int:
    """What the request wants that a step is for."""
    return step[1] if step[0] in {"decide", "receive", "basis"} else 0


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window"])
def test_what_a_window_with_an_overdraft_took_before_an_upgrade_counts_until_the_window_is_over(
    valkey_server: Any, algorithm: Algorithm
):
    """0x44 and 0x45 were windows with an overdraft, and 0x44 is a bucket: neither is taken for the other."""
    rule = LimitRule(id=1, name="x", algorithm=algorithm, limit=100, window_us=10_000_000)
    frame = frame_of(rule, TIMING)
    window = 170_000_000
    now_us = window * 10_000_000 + 9_999_000
    terms = strict_terms(
        algorithm, 100, frame, (1, 100_000, 0), (Quota(NO_ID, 50, 100),),
        skew_us=TIMING.skew_us, since_us=now_us, revision=REVISION,
    )  # fmt: skip
    was = struct.pack("<I", INCARNATION)
    for figure in (window, 60, 5, 0, 0, 0):  # 60 were taken, 5 of them beyond the 50 owned and the 5 given
        was += figure.to_bytes(6, "little")
    was += bytes(5 + 6 + 6) + b"".join(figure.to_bytes(6, "little") for figure in (5, 0, 0, 40, 0))
    with redis.Redis.from_url(valkey_server.url) as client:
        run = client.register_script(VIRTUAL_CLOCK.read_text("utf-8") + script())
        client.set(
            "{k}!m", b"\x00\x00\x00\x00\x00\x00\xf0\x7f" + encode_marker(Marker(INCARNATION, 1, REVISION, "run"))
        )

        def decide(cost: int, at_us: int) -> Outcome:
            return outcome_of(run(["{k}", "{k}c"], [terms.decide(), cost, at_us]))

        for kind in (b"\x44", b"\x45"):
            client.set("{k}c", b"\x00\x00\x00\x00\x00\x00\xf0\x7f" + kind + was)
            assert not decide(1, now_us).allowed, "all of it is used up"
            after_us = now_us + 10_000_000
            left = 50 if algorithm == "fixed_window" else 49  # a thousandth of what was taken too much weighs on
            assert decide(0, after_us).remaining == left
            assert decide(1, after_us).allowed
            assert client.get("{k}c")[8:9] == b"\x40", "written as any other"
        client.flushall()


def test_scripts_refuse_a_store_that_nobody_joined_or_that_is_newer_than_the_node(valkey_server: Any):
    _, _, terms, marker, _ = setting(random.Random(1))
    with redis.Redis.from_url(valkey_server.url) as client:
        run = client.register_script(script())

        def decide() -> Outcome:
            return outcome_of(run(["{k}", "{k}c"], [terms.decide(), 1]))

        assert decide() == Outcome(False, 0, REFUSED, 1_000_000, 0)
        client.set("{k}!m", encode_marker(marker._replace(revision=REVISION + 1)))
        assert decide().reset_us == REFUSED
        assert not outcome_of(run(["{k}", "{k}c"], [terms.basis(), 0])).allowed
        assert client.get("{k}c") is None
        client.set("{k}!m", encode_marker(marker, 5))
        assert decode_marker(client.get("{k}!m")) == marker
        assert decide().reset_us < REFUSED or decide().reset_us >= LOW
        client.flushall()
