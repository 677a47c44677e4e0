import msgspec
import pytest

from data_plane.config import rulebook
from data_plane.config.routes import UNMATCHED
from data_plane.config.rulebook import Rulebook, limit_set_key_of
from tidegate.contract.config import Client, Endpoint, Override, Plan
from tidegate.contract.limits import PARTS, LimitRule, Match, ShareStep

HOUR_US = 3_600_000_000
SHARED = LimitRule(id=1, name="hourly", limit=100, window_us=HOUR_US)
SPLIT = LimitRule(
    id=2, name="split", limit=100, window_us=HOUR_US, mode="regional", shares={"us-east": 70, "eu-west": 30}
)
ROUTE = Endpoint(endpoint="get-user", method="GET", path="/users/{id}")


def figures(client: Client | None, now_s: float = 0.0, region: str = "us-east") -> dict[str, int]:
    book = Rulebook(region, {"plan": {"free": Plan(plan="free", limits=(SHARED, SPLIT))}})
    limit_set = book.limit_set("free", client, ROUTE, "GET", now_s, sites=False)
    return {limit.rule.name: limit.rule.limit for limit in limit_set.limits}


def overridden(**overrides: Override) -> Client:
    return Client(client="acme", plan="free", overrides=overrides)


def test_a_regional_limit_is_the_regions_quota():
    assert figures(None) == {"hourly": 100, "split": 70}
    assert figures(None, region="eu-west") == {"hourly": 100, "split": 30}
    assert figures(None, region="nowhere") == {"hourly": 100, "split": 0}


@pytest.mark.parametrize(("methods", "met"), [(("GET",), "GET HEAD"), (("HEAD",), "HEAD"), (("POST",), "POST")])
def test_a_limit_of_gets_counts_heads_too(methods, met):
    rule = LimitRule(id=1, name="some", limit=1, window_us=HOUR_US, match=Match(methods=methods))
    book = Rulebook("us-east", {"plan": {"free": Plan(plan="free", limits=(rule,))}})
    found = [
        name for name in ("GET", "HEAD", "POST") if book.limit_set("free", None, ROUTE, name, 0.0, sites=False).limits
    ]
    assert " ".join(found) == met


def test_an_override_replaces_the_figures_of_its_limit_alone():
    assert figures(overridden(hourly=Override(limit=500))) == {"hourly": 500, "split": 70}


def test_an_override_of_a_split_limit_is_split_likewise_and_adds_up_to_itself():
    client = overridden(split=Override(limit=33))
    quotas = [figures(client, region=region)["split"] for region in ("us-east", "eu-west")]
    assert quotas == [23, 10]
    assert sum(quotas) == 33


def test_an_override_ends_when_it_says_so():
    client = overridden(hourly=Override(limit=500, expires_at=10.0))
    assert figures(client, 9.9)["hourly"] == 500
    assert figures(client, 10.0)["hourly"] == 100


def test_what_comes_after_an_override_holds_from_its_end_on():
    book = Rulebook("us-east", {"plan": {"free": Plan(plan="free", limits=(SHARED,))}})
    client = overridden(hourly=Override(limit=5_000, expires_at=10.0, then=Override(limit=500)))
    seen = [
        book.limit_set("free", client, ROUTE, "GET", now_s, sites=False).limits[0].rule.limit for now_s in (9.9, 10.0)
    ]
    assert seen == [5_000, 500]
    assert book.all_limits(client, 10.0)[0].limit == 500


def test_an_override_that_changes_counts_at_once_though_the_rulebook_stays():
    book = Rulebook("us-east", {"plan": {"free": Plan(plan="free", limits=(SHARED,))}})
    for limit in (500, 600):
        limit_set = book.limit_set("free", overridden(hourly=Override(limit=limit)), ROUTE, "GET", 0.0, sites=False)
        assert limit_set.limits[0].rule.limit == limit


def test_an_override_is_divided_by_the_limits_parts_whatever_the_limit_is():
    parts = (ShareStep(limit=PARTS, shares={"us-east": PARTS // 2, "eu-west": PARTS // 2}),)
    for limit, shares in ((3, {"us-east": 2, "eu-west": 1}), (4, {"us-east": 2, "eu-west": 2})):
        rule = msgspec.structs.replace(SPLIT, limit=limit, shares=shares, parts=parts)
        book = Rulebook("us-east", {"plan": {"free": Plan(plan="free", limits=(rule,))}})
        assert book.all_limits(overridden(split=Override(limit=100)), 0.0)[0].shares == {"us-east": 50, "eu-west": 50}


def test_clients_with_the_same_figures_share_what_is_bound_and_push_out_nobody_elses(monkeypatch):
    monkeypatch.setattr(rulebook, "_MAX_OWN_SETS", 3)
    book = Rulebook("us-east", {"plan": {"free": Plan(plan="free", limits=(SHARED,))}})
    clients = [Client(client=f"c{n}", plan="free", overrides={"hourly": Override(limit=n // 2)}) for n in range(20)]
    resolutions = book.resolutions[0]
    everybodys = resolutions["free", "GET", "/any"]
    for one, other in zip(clients[::2], clients[1::2], strict=True):
        limit_set = resolutions[limit_set_key_of(one), "GET", "/any"]
        assert limit_set.limits[0].rule.limit == one.overrides["hourly"].limit
        assert resolutions[limit_set_key_of(other), "GET", "/any"] is limit_set
        assert book.limit_set("free", other, UNMATCHED, "GET", 0.0, sites=False) is limit_set
    assert (len(resolutions), len(resolutions.own_sets), len(book.own_sets)) == (1, 3, 3)
    assert resolutions["free", "GET", "/any"] is everybodys


@pytest.mark.parametrize(("method", "asked"), [("M" * 300, "/users/7"), ("GET", "/" + "u" * 300)])
def test_what_end_clients_make_long_is_not_remembered(method, asked):
    resolutions = Rulebook("us-east", {"plan": {"free": Plan(plan="free", limits=(SHARED,))}}).resolutions[False]
    assert resolutions["free", method, asked].limits
    assert not resolutions
