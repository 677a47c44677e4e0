"""A template and the careful code write the same answer, whatever the figures, the limits and the client are."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.config.index import RuleIndex
from data_plane.decide.decision_tally import Tally
from data_plane.decide.pending_check import conclude
from data_plane.http.answers import Answer
from data_plane.http.decision_handler import FastAuthorizeCheck, FastCheck
from data_plane.http.pending_checks import (
    AuthorizeCheck,
    Batch,
    BatchCheck,
    HttpCheck,
    RepliedAuthorizeCheck,
    RepliedCheck,
)
from data_plane.http.render import Renderer
from data_plane.store.packing import UNKNOWN, outcomes_of
from testing.node import document_of
from tidegate.contract.config import Client, Endpoint, Plan, Region
from tidegate.contract.decision import CheckRequest
from tidegate.contract.limits import LimitRule

HOUR_US = 3_600_000_000
NOW_US = 1_764_000_000_000_001

LIMITS = {
    "hourly": LimitRule(id=1, name="hourly", limit=1000, window_us=HOUR_US),
    "burst": LimitRule(id=2, name="burst", algorithm="token_bucket", limit=10, window_us=500_000, burst=20),
    "hidden": LimitRule(id=3, name="hidden", scope="global", algorithm="fixed_window", limit=9, calendar="month"),
    "marked": LimitRule(id=4, name="marked", scope="ip", limit=7, window_us=1_500_000, headline=True),
    "shadow": LimitRule(id=5, name="shadow", limit=5, window_us=HOUR_US, shadow=True),
    "queue": LimitRule(id=6, name="queue", algorithm="leaky_bucket", limit=10, window_us=1_000_000, burst=20),
}

figures = st.tuples(
    st.integers(0, 10**12),
    st.integers(0, 40 * 24 * HOUR_US),
    st.integers(0, 3) | st.integers(0, 10**7) | st.integers(-(10**10), -1),
)


class CarefulDecider:
    """Concludes without a store; keeps what the careful code made of it."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.observers = ()
        self.verdicts = []

    def answered(self, check: HttpCheck, figures, at: int, now_us: int, *, degraded: bool) -> None:
        verdict = conclude(check, outcomes_of(figures, at, len(check.keys)), degraded=degraded)
        self.verdicts.append(verdict)
        check.decided(verdict, now_us)


def asked(kind: type[HttpCheck], names, client: str, reset_format: str, *arguments) -> HttpCheck:
    plan = Plan(plan='a "plan" of %d', limits=tuple(LIMITS[name] for name in names))
    values = [plan, Client(client=client, plan=plan.plan), Region(region="us-east")]
    index = RuleIndex.empty("us-east").with_changes([document_of(value) for value in values])
    principal = index.clients.get(client)
    check = kind(*arguments)
    check.decider = CarefulDecider()
    check.renderer = Renderer("us-east", reset_format)
    check.request = CheckRequest(api_key="k", path="/x")
    check.principal = principal
    route = Endpoint(endpoint="x", method="GET", path="/x")
    check.limit_set = index.book.limit_set(plan.plan, principal.client, route, "GET", 0.0, sites=False)
    check.keys = [b"key"] * len(names)
    check.cost, check.revision, check.asked_us = 1, 42, NOW_US
    check.id_prefix, check.id_number, check.plain = b"n1-abcd-", 77, True
    return check


names_and_figures = st.lists(st.sampled_from(sorted(LIMITS)), min_size=1, max_size=4, unique=True).flatmap(
    lambda names: st.tuples(st.just(names), st.lists(figures, min_size=len(names), max_size=len(names)))
)
clients = st.text(min_size=1, max_size=20).filter(str.isprintable)


def flat(own) -> list[int]:
    return [NOW_US - 5, *(number for one in own for number in one)]


@given(names_and_figures, clients, st.sampled_from(["epoch", "delta"]), st.booleans())
def test_the_answer_of_a_check_is_the_careful_one(limits, client: str, reset_format: str, degraded: bool) -> None:
    names, own = limits
    answers: list[Answer] = []
    check = asked(RepliedCheck, names, client, reset_format, (), None, answers.append)
    check.done(flat(own), 1, NOW_US, degraded=degraded)
    check.plain = False
    check.done(flat(own), 1, NOW_US, degraded=degraded)
    plain, careful = answers
    assert (plain.status, plain.headers) == (careful.status, careful.headers)
    assert msgspec.json.decode(plain.body) == msgspec.json.decode(careful.body)
    assert list(msgspec.json.decode(plain.body)) == list(msgspec.json.decode(careful.body))
    assert msgspec.json.decode(plain.body)["degraded"] is degraded
    by_template = min(figures[2] for figures in own) >= 0 and check.renderer.template(check).usable
    assert check.decider.tally.allowed == by_template
    assert check.decider.tally.degraded == (by_template and degraded)
    assert len(check.decider.verdicts) == 2 - by_template


class Asker:
    """A connection that keeps what it was answered."""

    peer = None

    def __init__(self) -> None:
        self.answers: list[Answer] = []

    def answer(self, exchange, status: int, headers: bytes, body: bytes) -> None:
        self.answers.append(Answer(status, headers, body))

    def answer_ok(self, exchange, headers: bytes, body: bytes) -> None:
        self.answer(exchange, 200, headers, body)


@given(
    names_and_figures, clients, st.sampled_from(["epoch", "delta"]), st.sampled_from(["check", "authorize"]),
    st.booleans(),
)  # fmt: skip
def test_the_fast_path_answers_as_other_handlers_do(
    limits, client: str, reset_format: str, route: str, degraded: bool
) -> None:
    names, own = limits
    asker, answers = Asker(), []
    if route == "check":
        fast, other = FastCheck, asked(RepliedCheck, names, client, reset_format, (), None, answers.append)
    else:
        fast = FastAuthorizeCheck
        other = asked(RepliedAuthorizeCheck, names, client, reset_format, (), None, answers.append)
    for _ in range(2):  # the first one finds no template yet
        check = asked(fast, names, client, reset_format)
        check.limit_set, check.asker = other.limit_set, asker
        check.done(flat(own), 1, NOW_US, degraded=degraded)
        assert check.asker is None
        assert check.decider.tally.allowed == (not check.decider.verdicts)
        assert check.decider.tally.degraded == (check.decider.tally.allowed and degraded)
    other.done(flat(own), 1, NOW_US, degraded=degraded)
    assert asker.answers == answers * 2


def test_a_client_that_left_is_counted_and_not_answered() -> None:
    check = asked(FastCheck, ["hourly"], "acme", "epoch")
    check.renderer.template(check)
    check.asker = None
    check.done([NOW_US, 5, 1, 0], 1, NOW_US + 300)
    assert check.decider.tally.allowed == 1
    assert check.decider.tally.latency_sum_us == 300


@given(names_and_figures, clients, st.sampled_from(["epoch", "delta"]), st.booleans())
def test_the_answer_of_forward_auth_is_the_careful_one(limits, client: str, reset_format: str, degraded: bool) -> None:
    names, own = limits
    answers: list[Answer] = []
    check: AuthorizeCheck = asked(RepliedAuthorizeCheck, names, client, reset_format, (), None, answers.append)
    check.done(flat(own), 1, NOW_US, degraded=degraded)
    check.plain = False
    check.done(flat(own), 1, NOW_US, degraded=degraded)
    assert answers[0] == answers[1]


@given(names_and_figures, clients, st.booleans())
def test_an_item_of_a_batch_is_what_the_careful_code_writes(limits, client: str, degraded: bool) -> None:
    names, own = limits
    answers: list[Answer] = []
    tally = Tally()
    batch = Batch(2, tally, answers.append, print)
    batch.begin_part(2, NOW_US)
    batch.answered(NOW_US)
    for number, plain in enumerate((True, False)):
        check = asked(BatchCheck, names, client, "epoch")
        check.batch, check.id_number, check.plain = batch, number, plain
        check.done(flat(own), 1, NOW_US, degraded=degraded)
    first, second = msgspec.json.decode(answers[0].body)["decisions"]
    for decision, number in ((first, 0), (second, 1)):
        assert decision.pop("request_id") == f"n1-abcd-{number}"
        assert decision.pop("instance", None) in (None, f"n1-abcd-{number}")
        assert decision["degraded"] is degraded
    assert first == second


@pytest.mark.parametrize(
    ("names", "usable"),
    [
        (["hourly"], True),
        (["hidden", "burst"], True),
        (["hidden"], False),
        (["hourly", "queue"], False),
    ],
)
def test_an_answer_has_a_template_unless_a_turn_or_a_hidden_limit_takes_part(names, usable: bool) -> None:
    check = asked(RepliedCheck, names, "acme", "epoch", (), None, print)
    assert check.renderer.template(check).usable == usable


def test_limits_keep_their_template() -> None:
    check = asked(RepliedCheck, ["hourly"], "acme", "epoch", (), None, print)
    assert check.renderer.template(check) is check.renderer.template(check)


@pytest.mark.parametrize("reset_format", ["epoch", "delta"])
@given(asked_for=names_and_figures, client=st.text(min_size=1, max_size=20), identified=st.booleans(), data=st.data())
def test_a_denial_by_its_template_is_the_careful_code_s(asked_for, client, identified, data, reset_format):
    """Twice with the same limits denying: the first makes the template, the second fills it with other figures."""
    names, first = asked_for
    again = data.draw(st.tuples(*[waits_likewise(one) for one in first]))
    check = asked(RepliedCheck, names, client, reset_format, (), None, [].append)
    if not identified:
        check.principal = None
    renderer = check.renderer
    for number, drawn in enumerate((first, again)):
        now_us = NOW_US + number * 1_234_567
        verdict = conclude(check, outcomes_of(flat(drawn), 1, len(names)))
        for got, careful in (
            (renderer.check(verdict, check.request, 42 + number, "n1-7", now_us), renderer.careful_check),
            (renderer.authorize(verdict, "n1-7", now_us), renderer.careful_authorize),
        ):
            expected = careful(verdict, 42 + number, "n1-7", now_us)
            assert (got.status, got.headers) == (expected.status, expected.headers)
            assert msgspec.json.decode(got.body or b"0") == msgspec.json.decode(expected.body or b"0")


def test_a_denial_is_the_careful_code_s_where_what_another_limit_has_left_is_unknown():
    check = asked(RepliedCheck, ["hourly", "burst"], "acme", "epoch", (), None, [].append)
    for left in (0, UNKNOWN):
        verdict = conclude(check, outcomes_of(flat([(0, 5, -9_000_001), (left, 5, -2_000_001)]), 1, 2))
        got = check.renderer.check(verdict, check.request, 42, "n1-7", NOW_US)
        assert got.headers == check.renderer.careful_check(verdict, 42, "n1-7", NOW_US).headers


def waits_likewise(figures_of_one):
    """Other figures of a limit that allows, or denies for a time, or for ever, as these do."""
    wait = figures_of_one[2]
    others = st.just(wait) if wait in {-1, 0} else st.integers(0, 10**7) if wait > 0 else st.integers(-(10**10), -2)
    return st.tuples(st.integers(0, 10**12), st.integers(0, 40 * 24 * HOUR_US), others)


def test_plain_denials_have_templates():
    """Else the test above would hold for nothing."""
    check = asked(RepliedCheck, ["hourly", "hidden", "marked"], 'tg "x" %d', "epoch", (), None, [].append)
    own = [(1, 2_000_000, 0), (0, 5, -6_000_001), (0, 7, -9_000_001)]
    verdict = conclude(check, outcomes_of(flat(own), 1, 3))
    check.renderer.check(verdict, check.request, 42, "n1-7", NOW_US)
    check.renderer.authorize(verdict, "n1-7", NOW_US)
    assert len(check.limit_set.denial_templates) == 2
    assert all(check.limit_set.denial_templates.values())
