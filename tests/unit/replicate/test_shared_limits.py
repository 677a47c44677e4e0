"""Whose shared limit a counter's key belongs to: what peers tell is merged by the rule that decides here."""

import pytest

from data_plane.config.counter_keys import subject_of
from data_plane.config.index import ConfigSet, RuleIndex
from data_plane.config.limit_resolution import RegionFacts
from data_plane.replicate.receiver import SharedLimits
from data_plane.store.subjects import Address
from testing.node import document_of, rule
from tidegate.contract.config import Client, Endpoint, Override, Plan, Region

NOW_S = 1_700_000_000.0
ENDPOINT = Endpoint(endpoint="e", method="GET", path="/e")
OVERRIDES = {
    "bucket": Override(limit=7, burst=70),
    "window": Override(limit=9, expires_at=NOW_S + 60, then=Override(limit=11)),
}


@pytest.fixture
def index() -> RuleIndex:
    limits = (
        rule(1, "bucket", 100, mode="shared", algorithm="token_bucket"),
        rule(2, "window", 100, mode="shared", scope="client+ip"),
        rule(3, "by-address", 100, mode="shared", scope="ip", algorithm="fixed_window"),
        rule(4, "own", 100),
    )
    values = [
        Plan(plan="p", limits=limits),
        Client(client="a b", plan="p", overrides=OVERRIDES), Client(client="c", plan="p"),
        Region(region="us-east"), Region(region="eu-west"), ENDPOINT,
    ]  # fmt: skip
    return RuleIndex.of("us-east", ConfigSet.empty().with_changes(map(document_of, values)))


@pytest.mark.parametrize("client", ["a b", "c"])
@pytest.mark.parametrize("now_s", [NOW_S, NOW_S + 61])
@pytest.mark.parametrize("unreachable", [(), (("eu-west", 5),)])
def test_a_key_leads_to_the_parameters_by_which_its_subject_is_decided(index, client, now_s, unreachable):
    limits = SharedLimits(lambda: index)
    assert limits.of_key(b"{c}1", now_s) is not None, "what is known of one state is not that of the next"
    index.book.resolve_by(RegionFacts(unreachable=unreachable))
    principal = index.clients.get(client)
    limit_set = index.book.limit_set("p", principal.client, ENDPOINT, "GET", now_s, sites=True)
    subject = subject_of(principal.client, Address("2001:db8::/64", "2001:db8::/48"), {})
    shared = [limit for limit in limit_set.limits if limit.rule.mode == "shared"]
    assert len(shared) == 5, "those by address count for the site as well"
    for limit in shared:
        found = limits.of_key(limit.key_builder.key(subject), now_s)
        assert (found.rule, found.params) == (limit.rule, limit.params), limit.key_builder.key(subject)


def test_what_is_no_shared_limit_here_leads_nowhere(index):
    limits = SharedLimits(lambda: index)
    assert [limits.of_key(key, NOW_S) for key in (b"{c}4", b"{c}1000", b"no key", b"")] == [None] * 4
