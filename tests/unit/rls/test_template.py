"""A template and the careful code write the same message, whatever the figures, the limits and the client are."""

import pytest
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitResponse
from hypothesis import given
from hypothesis import strategies as st

from data_plane.config.index import RuleIndex
from data_plane.decide.decision_tally import Tally
from data_plane.decide.pending_check import conclude
from data_plane.http.render import Renderer
from data_plane.rls.answers import response
from data_plane.rls.deciding import Result
from data_plane.rls.grpc import Meaning
from data_plane.rls.headers import Head
from data_plane.rls.service import RateLimitService, RlsCall
from data_plane.rls.template import varint
from data_plane.store.packing import outcomes_of
from testing.node import document_of
from tidegate.contract.config import Client, Plan, Region
from tidegate.contract.decision import CheckRequest
from tidegate.contract.limits import LimitRule

HOUR_US = 3_600_000_000
NOW_US = 1_764_000_000_000_001
LIMITS = {
    "hourly": LimitRule(id=1, name="hourly", limit=1000, window_us=HOUR_US),
    "burst": LimitRule(id=2, name="burst", algorithm="token_bucket", limit=10, window_us=500_000, burst=20),
    "hidden": LimitRule(id=3, name="hidden", scope="global", algorithm="fixed_window", limit=9, calendar="month"),
    "long": LimitRule(id=4, name="l" * 64, scope="ip", limit=10**12, window_us=1_500_000, headline=True),
    "shadow": LimitRule(id=5, name="shadow", limit=5, window_us=60_000_000, shadow=True),
    "queue": LimitRule(id=6, name="queue", algorithm="leaky_bucket", limit=10, window_us=1_000_000, burst=20),
}
figures = st.tuples(
    st.integers(0, 10**12) | st.integers(0, 300), st.integers(0, 40 * 24 * HOUR_US), st.integers(0, 3) | st.just(-5)
)


class CarefulDecider:
    """Concludes without a store."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.observers = ()

    def answered(self, check, figures, at: int, now_us: int, *, degraded: bool) -> None:
        check.decided(conclude(check, outcomes_of(figures, at, len(check.keys))), now_us)


class Service:
    id_prefix = "n-rls-"

    def __init__(self, reset_format):
        self.renderer = Renderer("us-east", reset_format)
        self.template = RateLimitService.template.__get__(self)


class KeptCall(RlsCall):
    """A call whose answer is kept."""

    __slots__ = ("answered",)

    def answer(self, message, now_us):
        self.answered = message


@pytest.mark.parametrize("reset_format", ["epoch", "delta"])
@given(
    st.lists(st.sampled_from(sorted(LIMITS)), min_size=1, max_size=5, unique=True),
    st.lists(figures, min_size=5, max_size=5),
    st.sampled_from(["acme", "50% Ärger"]),
)
def test_what_a_template_writes_the_careful_code_writes(reset_format, names, drawn, client):
    plan = Plan(plan="a plan of %d", limits=tuple(LIMITS[name] for name in names))
    values = [plan, Client(client=client, plan=plan.plan), Region(region="us-east")]
    index = RuleIndex.empty("us-east").with_changes([document_of(value) for value in values])
    call = KeptCall()
    call.service = Service(reset_format)
    call.number = 7
    call.decider = CarefulDecider()
    call.principal = index.clients.get(client)
    call.limit_set = index.book.resolutions[False][call.principal.limit_set_key, "GET", "/x"]
    call.keys = [b"k"] * len(call.limit_set.limits)
    call.cost, call.asked_us = 1, NOW_US - 5
    call.request = CheckRequest(client=client)
    own = [figure for three in drawn[: len(names)] for figure in three]
    call.done([1, 2, 3, *own], 3, NOW_US)
    verdict = conclude(call, outcomes_of([1, 2, 3, *own], 3, len(names)))
    careful = response(call.service.renderer, [Result(verdict, NOW_US)], call.request_id)
    assert RateLimitResponse.FromString(call.answered) == RateLimitResponse.FromString(careful)
    if verdict.allowed:
        assert call.decider.tally.allowed in (0, 1)
    usable = call.limit_set.rls_template is not None
    assert usable == ("queue" not in names and call.limit_set.limits[call.limit_set.headline].visible)


def test_numbers_are_written_as_protobuf_writes_them():
    for value in (0, 1, 127, 128, 300, 16_383, 16_384, 2**32 - 1, 2**40):
        status = RateLimitResponse.DescriptorStatus()
        status.duration_until_reset.seconds = value
        assert varint(value) == (status.duration_until_reset.SerializeToString()[1:] or b"\0")


class WaitedFor(RlsCall):
    """A call that notes by what it was answered."""

    __slots__ = ("by",)

    def reply(self, message):
        self.by = message

    def fail(self, status, message):
        self.by = status


@pytest.mark.parametrize(("timeout_us", "by"), [(None, b"m"), (5_000, b"m"), (4_999, 4)])
def test_an_answer_after_the_deadline_is_none(timeout_us, by):
    call = WaitedFor()
    call.asked_us = NOW_US
    call.head = Head(b"POST", b"/x", [], None)
    call.head.meaning = Meaning(None, None, timeout_us)
    call.answer(b"m", NOW_US + 5_000)
    assert call.by == by
