"""The plain way to the store finds what the careful one finds: the same limits, counters, cost and bytes."""

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_plane.config.index import RuleIndex
from data_plane.config.stream import Snapshot
from data_plane.decide.check_resolution import Anonymous, UnknownNameError, resolve
from data_plane.decide.decider import Decider
from data_plane.decide.decision_tally import Tally
from data_plane.decide.pending_check import CHECK_SLOTS, PendingCheck, Refusal, ResolvedCheck
from data_plane.decide.store_fallback import StoreFallback
from data_plane.load.following import Gates
from data_plane.store.local_counters import LocalCounters
from data_plane.store.packing import encode_check
from data_plane.store.script_host import ScriptHost
from data_plane.store.subject_bounds import SubjectBounds
from data_plane.store.subjects import InvalidAddressError
from testing.effort import examples
from testing.node import document_of, key_of, rule
from tidegate.contract.config import Change, Client, Endpoint, Override, Plan, Region
from tidegate.contract.credentials import secret_sha256
from tidegate.contract.decision import CheckRequest
from tidegate.contract.limits import LimitRule, Match

NOW_US = 1_764_000_000_000_000


def limits_of(*scopes: str, first_id: int) -> tuple[LimitRule, ...]:
    return tuple(
        rule(first_id + at, f"l{first_id + at}", 10, scope=scope, mode="shared") for at, scope in enumerate(scopes)
    )


PLANS = ("one", "many", "crossed", "attributed", "conditional", "none")
CONFIG = [
    Region(region="us-east"),
    Plan(plan="one", limits=limits_of("client", first_id=10)),
    Plan(plan="many", limits=limits_of("client", "ip", "endpoint+client", "global", "ip+backend", first_id=20)),
    Plan(plan="crossed", limits=limits_of("client", "client+ip", first_id=30)),
    Plan(plan="attributed", limits=limits_of("client", "attribute:tenant", first_id=40)),
    Plan(
        plan="conditional",
        limits=(*limits_of("client", first_id=50), rule(51, "eu", 5, match=Match(attributes={"region": "eu"}))),
    ),
    Plan(plan="none"),
    Plan(plan="anonymous", limits=limits_of("ip", "client", first_id=60)),
    *(Client(client=f"of-{plan}", plan=plan) for plan in PLANS),
    Client(client="reset", plan="many", generation=7),
    Client(client="own", plan="one", overrides={"l10": Override(limit=99)}),
    Client(client="ending", plan="one", overrides={"l10": Override(limit=99, expires_at=2e9)}),
    Client(client="ended", plan="many", overrides={"l20": Override(limit=99, expires_at=1e9, then=Override(limit=5))}),
    Client(client="told", plan="attributed", attributes={"tenant": "t1"}),
    Client(client="described", plan="many", attributes={"region": "eu"}, overrides={"l20": Override(limit=7)}),
    Client(client="suspended", plan="one", status="suspended"),
    Client(client="odd{}:|%", plan="many"),
    Endpoint(endpoint="get-user", method="GET", path="/users/{id}"),
    Endpoint(endpoint="export", method="POST", path="/exports", cost=20),
    Endpoint(endpoint="health", method="GET", path="/health", exempt=True),
    Endpoint(endpoint="any", method="*", path="/any"),
]  # fmt: skip
CLIENTS = [value.client for value in CONFIG if isinstance(value, Client)]
KEYS = [key_of(client, f"tg_{client}") for client in CLIENTS]
INDEX = RuleIndex.empty("us-east").with_changes([document_of(value) for value in (*CONFIG, *KEYS)])


class RecordingStore:
    def __init__(self) -> None:
        self.submitted: list[PendingCheck] = []

    def submit(self, check: PendingCheck) -> None:
        self.submitted.append(check)

    def submit_all(self, checks) -> None:
        self.submitted += checks


class StillClock:
    def now_us(self) -> int:
        return NOW_US


class AnsweredCheck(PendingCheck):
    __slots__ = (*CHECK_SLOTS, "result")

    def decided(self, result, now_us: int) -> None:
        self.result = result


def decider(
    store: RecordingStore, tally: Tally, anonymous: Anonymous | None = None, *, coarse: bool = False
) -> Decider:
    bounds = SubjectBounds()
    bounds.coarse = coarse
    counters = LocalCounters(ScriptHost(), 10)
    fallback = StoreFallback(counters, counters, lambda: 1, lambda call: call(), lambda: NOW_US)
    made = Decider(INDEX, store, StillClock(), fallback, tally, anonymous or Anonymous(), None, bounds, Gates())
    made.applied(INDEX, Snapshot(3, "", INDEX.config))
    return made


requests = st.builds(
    CheckRequest,
    api_key=st.sampled_from([*(f"tg_{client}" for client in CLIENTS), "tg_unknown", None]),
    ip=st.sampled_from([None, "203.0.113.9", "2001:db8:1:2::3", "::ffff:192.0.2.1", "fe80::1%eth0", "no address"]),
    method=st.sampled_from([None, "GET", "POST", "HEAD", "OPTIONS", "BREW"]),
    path=st.sampled_from([None, "/users/7", "/users/7?a=b", "/exports", "/health", "/any", "/else", "//", "/x" * 200]),
    cost=st.sampled_from([0, 1, 3, 10**12]),
    attributes=st.sampled_from([{}, {"tenant": "t2"}, {"region": "eu"}]),
)
clients = st.sampled_from([*CLIENTS, "nobody"])
endpoints = st.sampled_from([*(value.endpoint for value in CONFIG if isinstance(value, Endpoint)), "nothing", "/any"])


@st.composite
def by_name(draw) -> CheckRequest:
    """As a gateway may ask that it trusts: a client, an endpoint or both by name."""
    request = draw(requests)
    named: dict[str, str | None] = {}
    if draw(st.booleans()):
        named |= {"client": draw(clients), "api_key": None}
    if draw(st.booleans()):
        named |= {"endpoint": draw(endpoints), "path": None}
    return msgspec.structs.replace(request, **named)


OPEN, CLOSED = Anonymous(), Anonymous(missing_key=False, unknown_key=False)


@settings(max_examples=examples(150))
@given(request=requests | by_name(), anonymous=st.sampled_from([OPEN, CLOSED]), coarse=st.booleans())
@example(request=CheckRequest(api_key="tg_of-one", path="/any", method="GET"), anonymous=OPEN, coarse=False)
@example(
    request=CheckRequest(api_key="tg_reset", path="/exports", method="POST", ip="2001:db8::1", cost=3),
    anonymous=OPEN,
    coarse=False,
)
@example(
    request=CheckRequest(api_key="tg_described", path="/any", method="GET", attributes={"tenant": "t2"}),
    anonymous=OPEN,
    coarse=False,
)
@example(
    request=CheckRequest(client="of-many", endpoint="export", ip="2001:db8::1", cost=3), anonymous=OPEN, coarse=False
)
@example(request=CheckRequest(path="/any", method="GET", ip="203.0.113.9"), anonymous=OPEN, coarse=True)
def test_what_is_submitted_is_what_the_careful_code_prepares(
    request: CheckRequest, anonymous: Anonymous, coarse: bool
) -> None:
    store, tally = RecordingStore(), Tally()
    made = decider(store, tally, anonymous, coarse=coarse)
    bounds = SubjectBounds()
    bounds.coarse = coarse
    try:
        careful = ResolvedCheck(request)
        expected: PendingCheck | Refusal | None = (
            resolve(careful, INDEX, anonymous, bounds, NOW_US / 1_000_000) or careful
        )
    except (InvalidAddressError, UnknownNameError):
        expected = None
    for _ in range(2):  # the second time everything is known
        check = AnsweredCheck()
        check.decider, check.request, check.asked_us = made, request, NOW_US
        store.submitted.clear()
        try:
            made.decide(check)
        except (InvalidAddressError, UnknownNameError):
            assert expected is None
            continue
        assert expected is not None
        if isinstance(expected, Refusal) or not expected.limit_set.limits:
            assert not store.submitted
            assert check.result == expected if isinstance(expected, Refusal) else check.result.allowed
            continue
        assert store.submitted == [check]
        assert_same(check, expected)


def assert_same(check: PendingCheck, expected: PendingCheck) -> None:
    assert check.limit_set is expected.limit_set
    assert list(check.keys) == list(expected.keys)
    assert check.cost == expected.cost
    assert check.packed == encode_check(expected.cost, expected.limit_set.params)
    assert check.plan == expected.plan
    assert (check.principal and check.principal.client) == (expected.principal and expected.principal.client)
    assert check.revision == 3


def test_a_key_that_was_used_is_known_until_it_ends_or_another_revision_says_otherwise() -> None:
    ends_us = NOW_US + 1_000_000
    index = INDEX.with_changes([document_of(key_of("of-one", "tg_ends", expires_at=ends_us / 1e6))])
    for _ in range(2):
        assert index.principal_of("tg_ends", ends_us - 1).key_id == "of-one-key"
    assert index.principal_of("tg_ends", ends_us) is None
    assert set(index.known) == {"tg_ends"}
    revoked = index.with_changes([Change("key", secret_sha256("tg_ends"), None)])
    assert revoked.principal_of("tg_ends", NOW_US) is None


def test_a_known_key_that_ended_is_anonymous_on_the_plain_way_too() -> None:
    ends_us = NOW_US + 1_000_000
    index = INDEX.with_changes([document_of(key_of("of-one", "tg_ends", expires_at=ends_us / 1e6))])
    store = RecordingStore()
    made = decider(store, Tally())
    made.applied(index, Snapshot(4, "", index.config))
    for asked_us in (NOW_US, NOW_US, ends_us):
        check = AnsweredCheck()
        check.decider, check.request, check.asked_us = made, CheckRequest(api_key="tg_ends", path="/users/7"), asked_us
        made.decide(check)
    assert [check.principal and check.principal.client.client for check in store.submitted] == ["of-one"] * 2 + [None]
