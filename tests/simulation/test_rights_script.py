"""The scripts do to a strict window what the pure steps do, on a real Valkey, over random histories."""

import random
from importlib.resources import files
from typing import Any

import pytest
import redis

from contract.limits import LimitRule
from data_plane.domain.regions import rights, transfers
from data_plane.domain.regions.book import EMPTY, Gift
from data_plane.domain.regions.frame import frame_of, id_at, start_us
from data_plane.domain.regions.marker import Marker, View
from data_plane.domain.regions.messages import Ask, Give
from data_plane.domain.regions.quotas import Quota
from data_plane.domain.regions.rules import DEFAULT_TIMING
from data_plane.domain.regions.terms import NO_ID, Terms
from data_plane.domain.regions.wire import decode_marker, encode_marker, encode_terms, encode_view
from tests.conformance.drivers import VIRTUAL_CLOCK
from tidegate.simulate.store import SimulatedStore

HISTORIES, STEPS = 150, 60
PEERS = [("west", 1), ("west", 2), ("south", 1)]
MARKER = Marker(3, 0, 7, "run")


def steps_script() -> str:
    folder = files("lua")
    return "\n".join(
        (folder / f"{part}.lua").read_text("utf-8") for part in ("prelude", "windows", "rights", "rights_steps")
    )


class PureSteps:
    """The pure steps over a store that expires keys as Redis does: in whole milliseconds, after the last has passed."""

    def __init__(self) -> None:
        self.store = SimulatedStore("run", "noeviction")

    def __call__(self, terms: Terms, now_us: int, step: tuple[Any, ...]) -> list[Any]:
        name = ("counter", 0)
        state, book = self.store.hot.get(name, (None, 0))[0], self.store.books.get(name, EMPTY)
        if name in self.store.hot and now_us // 1000 > self.store.hot[name][1]:
            state = None
        what, *rest = step
        if what == "decide":
            found = rights.decide(terms, state, rest[0], now_us)
            self._save(terms, found.state, None, now_us)
            return [int(found.allowed), found.id, found.remaining, int(found.low)]
        if what == "give":
            peer, incarnation, id, to_incarnation, known = rest
            ask = Ask("counter", 0, 0, id, peer, incarnation, to_incarnation, Gift(known), 0, 0, 0)
            given = transfers.give(terms, state, book, ask, now_us)
            assert given is not None
            if given.book is not book and not given.answer.is_empty:
                self._save(terms, given.state, given.book, now_us)
            return [given.answer.total.units, given.answer.have, int(given.answer.is_empty)]
        if what == "receive":
            peer, incarnation, id, total = rest
            answer = Give("counter", 0, id, peer, incarnation, terms.incarnation, Gift(total), 0, False, 0, 0)
            received = transfers.receive(terms, state, book, answer, now_us)
            if received is None:
                return []
            if received.gained:
                self._save(terms, received.state, received.book, now_us)
            return [received.gained, received.have, int(received.low)]
        basis = transfers.basis(terms, state, book, now_us)
        return [basis.id, basis.have, basis.rate, int(basis.low), sorted(basis.known)]

    def _save(self, terms: Terms, state: Any, book: Any, now_us: int) -> None:
        if state is not None:
            ttl_ms = max(1, -(-(rights.forget_us(terms, state) - now_us) // 1000))
            self.store.save(("counter", 0), state, book, now_us // 1000 + ttl_ms)


def known_gifts(flat: list[Any]) -> list[tuple[str, int, Gift]]:
    """The tail of a ``basis`` reply, as the pure step says it."""
    triples = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    return sorted((peer.decode(), life, Gift(units)) for peer, life, units in triples)


def history(chance: random.Random) -> list[tuple[Terms, int, tuple[Any, ...]]]:
    """Terms, times and steps: shares that change by id, clocks that step back, gifts that come late or twice."""
    rule = LimitRule(
        id=1,
        name="x",
        algorithm=chance.choice(["fixed_window", "sliding_window"]),
        limit=chance.choice([10, 1000]),
        window_us=chance.choice([3_000_000, 10_000_000, 7_333_000]),
    )
    frame = frame_of(rule, DEFAULT_TIMING)
    now_us = 1_700_000_000_000_000 + chance.randrange(10_000_000)
    first = id_at(frame, now_us)
    share = rule.limit // 2
    terms = Terms(
        algorithm=rule.algorithm,
        frame=frame,
        schedule=(Quota(NO_ID, share, rule.limit), Quota(first + 2, share // chance.choice([1, 2, 5]), rule.limit)),
        incarnation=MARKER.incarnation,
        quiet_id=chance.choice([NO_ID, NO_ID, first]),
        horizon_us=chance.choice([0, 600_000]),
        region="east",
    )
    totals: dict[tuple[str, int, int], int] = {}
    found = []
    for _ in range(STEPS):
        now_us += chance.choice([0, 1_000, 90_000, 400_000, 2_000_000, -300_000, 9_000_000])
        id = id_at(frame, now_us)
        if chance.random() < 0.2:
            now_us = start_us(frame, id + 1) - chance.randrange(1_200_000)
        peer, incarnation = chance.choice(PEERS)
        id = id_at(frame, now_us) + chance.choice([0, 0, 0, 1, -1])
        life = (peer, incarnation, id)
        step: tuple[Any, ...]
        match chance.randrange(8):
            case 0 | 1 | 2 | 3:
                step = ("decide", chance.choice([0, 1, 1, 2, rule.limit // 5]))
            case 4:
                step = ("give", *life, chance.choice([0, MARKER.incarnation]), chance.choice([0, 0, rule.limit // 4]))
            case 5 | 6:
                totals[life] = totals.get(life, 0) + chance.randrange(rule.limit // 5)
                step = ("receive", *life, max(0, totals[life] - chance.choice([0, 0, 3])))
            case _:
                step = ("basis",)
        found.append((terms, now_us, step))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_scripts_agree_with_the_pure_steps(valkey_server: Any, seed: int):
    chance = random.Random(seed)
    view = encode_view(View(MARKER.incarnation, MARKER.revision))
    with redis.Redis.from_url(valkey_server.url) as client:
        sha = client.script_load(VIRTUAL_CLOCK.read_text("utf-8") + steps_script())
        for number in range(HISTORIES):
            steps = history(chance)
            key = f"{{{seed}-{number}}}"
            pipeline = client.pipeline(transaction=False)
            for terms, now_us, step in steps:
                expires = b"\x00\x00\x00\x00\x00\x00\xf0\x7f"  # the virtual clock's: never
                pipeline.set(f"{key}m", expires + encode_marker(MARKER))
                arguments = [view, encode_terms(terms), *step, now_us]
                pipeline.evalsha(sha, 3, f"{key}c", f"{key}b", f"{key}m", *arguments)
            replies = pipeline.execute()[1::2]
            pure = PureSteps()
            for (terms, now_us, step), raw in zip(steps, replies, strict=True):
                expected = pure(terms, now_us, step)
                reply = raw if step[0] != "basis" else [*raw[:4], known_gifts(raw[4:])]
                assert reply == expected, (seed, number, step, now_us)
        client.flushall()


def test_scripts_refuse_who_differs_from_the_marker(valkey_server: Any):
    terms, _, _ = history(random.Random(1))[0]
    with redis.Redis.from_url(valkey_server.url) as client:
        script = client.register_script(steps_script())
        keys = ["{k}c", "{k}b", "{k}m"]

        def decide(view: View) -> Any:
            return script(keys, [encode_view(view), encode_terms(terms._replace(quiet_id=NO_ID)), "decide", 1])

        assert decide(View(3, 7)) == b"no_marker"
        client.set("{k}m", encode_marker(MARKER))
        assert decode_marker(client.get("{k}m")) == MARKER
        assert decide(View(2, 7)) == b"other_incarnation"
        assert decide(View(3, 6)) == b"node_outdated"
        assert client.get("{k}c") is None
        assert decide(View(3, 8))[0] == 1
        client.flushall()
