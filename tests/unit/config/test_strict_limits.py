"""A strict limit as a region enforces it: schedules, terms, and whose limit a key belongs to."""

import struct

import msgspec
import pytest

from data_plane.config.index import ConfigSet, RuleIndex
from data_plane.config.limit_resolution import RegionFacts, in_region, shared_params
from data_plane.config.limits_of_keys import StrictLimits
from data_plane.config.routes import NO_ENDPOINT
from data_plane.config.strict_limits import divided, effective_us, most_units, moves_rights, scaled, schedule_of
from data_plane.rights.region_state import RegionState
from data_plane.store.packing import params_end
from testing.node import document_of, rule
from tests.reference.shares import quota_at
from tidegate.contract.calendar import SKEW_US, cycle_us, next_start_us
from tidegate.contract.config import Client, Override, Plan, Region
from tidegate.contract.limits import EXACT, PARTS, LimitRule, ShareStep, capacity
from tidegate.contract.shares import equal_shares

HOUR_US = 3_600_000_000
NOW_US = 1_700_000_000_000_000


def strict(**members) -> LimitRule:
    known = {"mode": "strict", "algorithm": "fixed_window", "shares": {"us-east": 600, "eu-west": 400}}
    id, name = members.pop("id", 7), members.pop("name", "exact")
    return rule(id, name, 1_000, **{**known, **members})


def test_without_steps_a_region_owns_its_share_under_every_id():
    assert [quota_at(schedule_of(strict(), "us-east"), id).share for id in (0, 10**6)] == [600, 600]
    assert quota_at(schedule_of(strict(), "mars"), 5).share == 0


def test_a_step_holds_from_the_first_window_that_begins_after_it():
    steps = (
        ShareStep(limit=1_000, shares={"us-east": 600, "eu-west": 400}),
        ShareStep(from_us=NOW_US, limit=1_000, shares={"us-east": 100, "eu-west": 400}),
    )
    schedule = schedule_of(strict(steps=steps), "us-east")
    current = NOW_US // HOUR_US
    assert [quota_at(schedule, id).share for id in (current - 1, current, current + 1)] == [600, 600, 100]
    exactly = (steps[0], ShareStep(from_us=(current + 1) * HOUR_US, limit=1_000, shares={"us-east": 1}))
    assert quota_at(schedule_of(strict(steps=exactly), "us-east"), current + 1).share == 1


def test_a_bucket_is_split_by_capacity():
    bucket = strict(algorithm="token_bucket", burst=10, shares={"us-east": 2, "eu-west": 1})
    assert [schedule_of(bucket, name)[0].share for name in ("us-east", "eu-west")] == [7, 3]
    assert moves_rights(bucket)
    slow = strict(algorithm="token_bucket", burst=10**6, window_us=366 * 86_400_000_000)
    assert not moves_rights(slow), "its parts would not be exact"


@pytest.mark.parametrize("burst", [None, 12])
@pytest.mark.parametrize("algorithm", ["token_bucket", "leaky_bucket"])
def test_buckets_of_regions_that_keep_to_their_parts_hold_no_more_than_the_whole(algorithm: str, burst: int | None):
    bucket = strict(mode="regional", algorithm=algorithm, burst=burst, shares={"us": 100, "eu": 250, "asia": 650})
    held = sum(capacity(in_region(bucket, region)) for region in bucket.shares)
    assert capacity(bucket) - 2 <= held <= capacity(bucket)


def test_a_large_bucket_too_fills_by_the_shares_of_regions_that_are_reached():
    bucket = rule(1, "large", 10**11, mode="shared", algorithm="token_bucket", window_us=10**13)
    facts = RegionFacts(unreachable=(("asia", NOW_US),))
    params = shared_params(bucket, facts, {"us": 1, "eu": 1, "asia": 1})
    _, units, unit_us, size = struct.unpack("<Bddd", params)
    assert 0.99 * 2 / 3 / 100 < units / unit_us <= 2 / 3 / 100
    assert (size, size * unit_us < EXACT) == (10**11, True)


def test_a_cut_holds_from_the_first_window_that_no_clock_has_reached():
    boundary_us = (NOW_US // HOUR_US + 1) * HOUR_US
    assert effective_us(strict(), NOW_US) == boundary_us
    assert effective_us(strict(), boundary_us - 500_000) == boundary_us + HOUR_US


@pytest.mark.parametrize(("algorithm", "windows"), [("fixed_window", 0), ("sliding_window", 1), ("sliding_log", 1)])
def test_a_region_that_keeps_to_its_share_has_a_raised_one_once_no_other_counts(algorithm: str, windows: int):
    """On a Cluster rights do not move: a share that was raised stayed what it was before, for good."""
    raised_us = (NOW_US // HOUR_US + 1) * HOUR_US
    steps = (
        ShareStep(limit=1_000, shares={"us-east": 600, "eu-west": 400}),
        ShareStep(from_us=NOW_US, limit=1_000, shares={"us-east": 300, "eu-west": 400}),
        ShareStep(from_us=raised_us, limit=1_000, shares={"us-east": 300, "eu-west": 700}),
    )
    moved = strict(algorithm=algorithm, shares=steps[-1].shares, steps=steps)
    plan = Plan(plan="p", limits=(moved,))
    index = RuleIndex.of("eu-west", ConfigSet.empty().with_changes([document_of(plan)]))
    state = RegionState(lambda: index.book, rights=False)
    state.apply(index, 3)

    def share(now_us: int) -> int:
        state.drop_finished_moves(now_us)
        return in_region(moved, "eu-west", index.book.region_facts.at_us).limit

    over_us = raised_us + windows * HOUR_US + SKEW_US
    assert [share(at_us) for at_us in (NOW_US, raised_us, over_us - 1, over_us)] == [400, 400, 400, 700]
    assert share(over_us - 1) == 400, "the clock was set back"
    assert in_region(moved, "us-east", over_us).limit == 300


def test_a_raised_part_of_a_bucket_waits_until_what_its_tokens_replace_has_come_back():
    """Another region may have spent them a moment before its cut: two parts of one bucket were more than it holds."""
    shares = ({"us-east": 80, "eu-west": 20}, {"us-east": 20, "eu-west": 20}, {"us-east": 20, "eu-west": 80})
    bucket = strict(algorithm="token_bucket", burst=100)
    raised_us = next_start_us(bucket, NOW_US)
    steps = tuple(
        ShareStep(from_us=from_us, limit=1_000, shares=each)
        for from_us, each in zip((0, NOW_US, raised_us), shares, strict=True)
    )
    moved = strict(algorithm="token_bucket", burst=100, shares={"us-east": 200, "eu-west": 800}, steps=steps)
    over_us = raised_us + SKEW_US + cycle_us(bucket)
    held = [capacity(in_region(moved, "eu-west", at_us)) for at_us in (0, raised_us + SKEW_US, over_us - 1, over_us)]
    assert held == [20, 20, 20, 80]
    assert [capacity(in_region(moved, "us-east", at_us)) for at_us in (0, over_us)] == [20, 20]


def test_a_raised_part_of_a_client_s_own_bucket_counts_although_its_epochs_are_longer():
    raised_us = next_start_us(strict(algorithm="token_bucket", burst=100), NOW_US)
    divisions = (80, 20), (20, 20), (20, 80)
    parts = tuple(
        ShareStep(from_us=from_us, limit=PARTS, shares={"us-east": PARTS * east // 100, "eu-west": PARTS * west // 100})
        for from_us, (east, west) in zip((0, NOW_US, raised_us), divisions, strict=True)
    )
    moved = strict(algorithm="token_bucket", burst=100, parts=parts)
    index = RuleIndex.of("eu-west", ConfigSet.empty().with_changes([document_of(Plan(plan="p", limits=(moved,)))]))
    state = RegionState(lambda: index.book, rights=False)
    state.apply(index, 3)
    own = divided(moved, 10, 100, moved.parts)
    assert cycle_us(own) > 10 * cycle_us(moved)
    held = []
    for now_us in (raised_us + SKEW_US + cycle_us(own) - 1, raised_us + SKEW_US + 2 * cycle_us(own)):
        state.drop_finished_moves(now_us)
        held.append(capacity(in_region(own, "eu-west", index.book.region_facts.at_us)))
    assert held == [20, 80]


def test_another_limit_keeps_proportions_and_sums_to_the_whole():
    steps = (ShareStep(limit=1_000, shares={"us-east": 333, "eu-west": 667}),)
    small = scaled(strict(steps=steps), 10, None)
    assert (small.limit, small.steps[0].shares) == (10, {"us-east": 3, "eu-west": 7})
    assert most_units(small) == 10


@pytest.mark.parametrize("algorithm", ["fixed_window", "token_bucket"])
def test_an_override_of_one_belongs_to_some_region(algorithm: str):
    """Rounded down, every region would own nothing, and nobody could give any."""
    regions = ("us-east", "eu-west", "ap-south")
    shares = dict(zip(regions, (334, 333, 333), strict=True))
    one = scaled(strict(algorithm=algorithm, shares=shares, steps=(ShareStep(limit=1_000, shares=shares),)), 1, None)
    assert sorted(one.shares.values()) == [0, 0, 1]
    assert sorted(schedule_of(one, region)[0].share for region in regions) == [0, 0, 1]


def test_a_cut_of_an_override_is_within_both_divisions_that_it_stands_between():
    """Regions go by different steps for a while: a cut with none left over could be more than either's."""
    old, cut, new = (
        dict(zip("abc", units, strict=True)) for units in ((334, 333, 333), (334, 333, 283), (350, 367, 283))
    )
    for limit in range(1, 40):
        rule = strict(shares=new, steps=tuple(ShareStep(limit=1_000, shares=one) for one in (old, cut, new)))
        before, between, after = (step.shares for step in scaled(rule, limit, None).steps)
        assert sum(before.values()) == sum(after.values()) == limit
        assert all(between[name] <= min(before[name], after[name]) for name in "abc")


def test_a_key_leads_to_the_limit_as_its_subject_meets_it():
    limits = (strict(), strict(id=8, name="by-address", scope="ip"), rule(9, "open", 5, mode="shared"))
    override = {"exact": Override(limit=500, expires_at=100.0, then=Override(limit=300))}
    config = ConfigSet.empty().with_changes(
        map(
            document_of,
            [
                Plan(plan="p", limits=limits), Client(client="a b", plan="p", overrides=override),
                Client(client="c", plan="p"), Region(region="us-east"), Region(region="eu-west"),
            ],
        )
    )  # fmt: skip
    index = RuleIndex.of("us-east", config)
    found = StrictLimits("us-east", lambda: index, lambda: 3)
    assert found.of_key(b"{c}7", 0.0).rule.limit == 1_000
    assert found.of_key(b"{a b}7", 0.0).rule.limit == 500
    assert found.of_key(b"{a b}7", 100.0).rule.limit == 300
    assert schedule_of(found.of_key(b"{a b}7", 0.0).rule, "us-east")[0].share == 300
    assert found.of_key(b"{i:10.0.0.1}8", 0.0).rule.limit == 1_000
    assert found.of_key(b"{i:2001:db8::/48}8", 0.0).rule.limit == 16_000
    assert [found.of_key(key, 0.0) for key in (b"{c}9", b"{c}1000", b"no key", b"")] == [None] * 4


@pytest.mark.parametrize("limit", [60, 61, 300, 1_000])
def test_an_override_of_the_same_figure_is_divided_as_the_limit(limit: int):
    """Else one that is set or dropped within a window would have two regions own the same unit."""
    regions = ("a", "b", "c")
    parts = (ShareStep(limit=PARTS, shares=equal_shares(PARTS, regions)),)
    of_limit = equal_shares(limit, regions)
    rule = msgspec.structs.replace(strict(shares=of_limit, parts=parts), limit=limit)
    assert divided(rule, limit, None, parts).shares == of_limit


@pytest.mark.parametrize("first", ["own", "plain"])
def test_an_override_of_the_same_figure_is_not_taken_for_the_limit(first: str):
    """Its units are made of parts, those of the limit by the control plane."""
    regions = ("a", "b", "c")
    parts = ShareStep(limit=PARTS, shares=equal_shares(PARTS, regions))
    limit = msgspec.structs.replace(strict(shares=equal_shares(300, regions), parts=(parts,)), limit=300)
    values = (
        Plan(plan="p", limits=(limit,)),
        Client(client="own", plan="p", overrides={"exact": Override(limit=300)}),
        Client(client="plain", plan="p"),
        *(Region(region=name) for name in regions),
    )
    index = RuleIndex.of("a", ConfigSet.empty().with_changes(map(document_of, values)))
    index.book.resolve_by(RegionFacts(revision=3, rights=True))
    found = StrictLimits("a", lambda: index, lambda: 3)
    found.of_key(f"{{{first}}}7".encode(), 0.0)
    for client in ("own", "plain"):
        principal = index.clients.get(client)
        decided = index.book.limit_set("p", principal.client, NO_ENDPOINT, "GET", 0.0, sites=False)
        assert found.of_key(f"{{{client}}}7".encode(), 0.0).params.decide() == decided.params[0]


def test_terms_are_read_to_their_end():
    index = RuleIndex.of("us-east", ConfigSet.empty().with_changes([document_of(Plan(plan="p", limits=(strict(),)))]))
    index.book.resolve_by(RegionFacts(revision=3, rights=True))
    params = StrictLimits("us-east", lambda: index, lambda: 3).of_key(b"{c}7", 0.0).params
    for item in (params.decide(), params.basis(), params.known("eu-west", 5, 6)):
        assert params_end(b"?" * 9 + item + b"more", 9) == 9 + len(item)
