"""One node decides, all apply: on a real store, with the nodes' clock driven."""

import msgspec
import pytest

from data_plane.config.index import InvalidConfigError, RuleIndex
from data_plane.http.load_handler import LoadHandler
from data_plane.load.following import LEASE
from data_plane.store.ports import StoreUnavailableError
from testing.entered import files_entered
from testing.load_region import START_US, USERS, load_region
from testing.node import document_of
from tidegate.contract.config import Change
from tidegate.contract.credentials import make_credential, secret_sha256
from tidegate.contract.load import AdaptivePolicy, Backend, Capacity, LoadReport, ManualFactor, Reporter
from tools.docs.flows import steps_of


@pytest.fixture
async def region(valkey_url):
    async with load_region(valkey_url) as running:
        yield running


async def test_all_nodes_apply_what_one_decides(region):
    for _ in range(3):
        await region.second(0.5)
    assert (region.one.decider.deciding, region.two.decider.deciding) == (True, False)
    assert region.one.factors() == region.two.factors() == (1_000_000, 1_000_000)
    for _ in range(3):
        await region.second(2.0)
    (load,) = region.two.loads()
    assert (load.factor, load.reason, load.signal, load.reporters, load.decided_by) == (0.5, "held", "cpu", 2, "n1")
    assert region.one.factors() == region.two.factors()
    low, high = region.two.factors()
    assert low < 100_000, "half of what is asked for is the critical class's: hardly anything is left"
    assert high == 1_000_000
    assert load.since < load.decided_at


async def test_load_enters_the_files_of_the_page_and_no_others(region):
    """The files of the Load flow in ``docs/how-it-works.md``, up to the decider, which has a flow of its own."""
    secrets = [make_credential("reporter", bytes([number] * 32)) for number in (1, 2)]
    reporters = [
        Reporter(reporter=secret[-4:], sha256=secret_sha256(secret), backends=("users",)) for secret in secrets
    ]
    region.index = region.index.with_changes(map(document_of, reporters))
    member = region.one
    handler = LoadHandler(lambda: region.index.book, member.reports, region.clock, "token")
    for _ in range(3):
        region.clock.us += 1_000_000
        with files_entered() as files:
            for secret in secrets:
                headers = [(b"x-tidegate-token", secret.encode())]
                assert handler.load(headers, b'{"backend": "users", "cpu": 3.0}').status == 202
            await member.follower.follow()
            await member.decider.decide()
            await member.follower.follow()
    assert member.follower.shared.backends[0].whole < 1_000_000
    floor = ("data_plane/store/", "data_plane/http/answers.py", "data_plane/http/caller.py")
    through = {file for file in files if file.startswith("data_plane/") and not file.startswith(floor)}
    page = {step.file for step in steps_of("Load") if step.file.startswith("data_plane/")}
    assert through == page - {"data_plane/decide/decider.py"}


async def test_demand_is_what_all_nodes_were_asked_for(region):
    for _ in range(3):
        await region.second(0.5, demand=(30, 10))
    (load,) = region.one.loads()
    assert {one.priority: one.offered_per_s for one in load.classes} == {0: 60.0, 50: 20.0}


async def test_a_node_that_is_gone_is_replaced_and_its_successor_goes_on_from_there(region):
    for _ in range(3):
        await region.second(9.0)
    before = region.one.follower.shared.backends[0].state
    assert (before.factor, before.above) == (0.5, 1)
    await region.stores[1].execute("DEL", LEASE)  # what its time to live does when nobody keeps it
    for reporter in ("a", "b"):
        region.two.reports.take(reporter, LoadReport(backend="users", cpu=9.0), region.clock.us + 1_000_000)
    await region.second(members=(region.two,))
    assert region.two.decider.deciding
    assert region.two.follower.shared.node == "n2"
    after = region.two.follower.shared.backends[0].state
    assert after.factor == 0.25, "the second tick above, counted on from where the other left off, cuts"
    await region.second(9.0)
    assert not region.one.decider.deciding, "who comes back does not take it back"


async def test_who_lost_the_lease_publishes_nothing(region):
    await region.second(0.5)
    shared = region.one.follower.shared
    await region.stores[0].execute("SET", LEASE, "somebody-else")
    assert await region.one.factor_store.publish(b"{}") is False
    await region.one.decider.hand_over()
    assert await region.stores[0].execute("GET", LEASE) == b"somebody-else"
    await region.two.follower.follow()
    assert region.two.follower.shared == shared


async def test_nobody_reporting_cuts_nobody_whatever_is_asked_of_the_capacity(region):
    capacity = Capacity(id=7, open_id=8, limit=10, window_us=1_000_000)
    region.index = region.index.with_changes([document_of(msgspec.structs.replace(USERS, capacity=capacity))])
    for _ in range(4):
        await region.second(None, demand=(500, 0))
    assert region.one.factors() == region.two.factors() == (1_000_000, 1_000_000)
    for _ in range(4):
        await region.second(0.1, demand=(500, 0))
    assert region.two.factors()[0] == 10_000, "while they speak, who gives way at the capacity is by class"
    for _ in range(12):
        await region.second(None, demand=(500, 0))
    assert region.two.factors() == (1_000_000, 1_000_000)


async def test_a_manual_factor_rules_until_it_expires(region):
    manual = ManualFactor(factor=0.3, expires_at=START_US / 1e6 + 4)
    change = document_of(Backend(backend="users", adaptive="protect", manual=manual))
    region.index = region.index.with_changes([change])
    for _ in range(3):
        await region.second(0.1)
    (load,) = region.two.loads()
    assert (load.factor, load.reason) == (0.3, "manual")
    for _ in range(10):
        await region.second(0.1)
    (load,) = region.two.loads()
    assert load.factor > 0.3
    assert load.reason == "raised"


async def test_a_backend_closed_by_hand_is_closed_to_the_first_after_a_pause_too(region):
    manual = ManualFactor(factor=0.0, expires_at=START_US / 1e6 + 60)
    change = document_of(Backend(backend="users", adaptive="protect", manual=manual))
    region.index = region.index.with_changes([change])
    for _ in range(3):
        await region.second(0.1, demand=(0, 0))
        assert region.one.factors() == region.two.factors() == (0, 0)


async def test_a_backend_that_loses_its_policy_is_open_at_once(region):
    for _ in range(4):
        await region.second(9.0)
    assert region.two.factors() != (1_000_000, 1_000_000)
    region.index = region.index.with_changes([document_of(Backend(backend="users"))])
    await region.two.follower.follow()
    assert region.two.factors() == (1_000_000, 1_000_000)
    assert not region.two.loads()


async def test_without_the_store_factors_are_held_and_then_given_up(region, monkeypatch):
    for _ in range(4):
        await region.second(9.0)
    held = region.two.factors()
    assert held[0] < 1_000_000

    async def away():
        raise StoreUnavailableError("timeout")

    monkeypatch.setattr(region.two.factor_store, "read", away)
    region.clock.us += 10_000_000
    await region.two.follower.follow()
    assert region.two.factors() == held
    region.clock.us += 10_000_000
    for _ in range(4 * 21):
        await region.two.follower.follow()
    assert region.two.factors() == (1_000_000, 1_000_000)


async def test_without_the_store_an_operators_factor_is_held_until_it_expires(region, monkeypatch):
    manual = ManualFactor(factor=0.0, expires_at=region.clock.us / 1e6 + 120)
    region.index = region.index.with_changes([document_of(msgspec.structs.replace(USERS, manual=manual))])
    await region.second(0.1)

    async def away():
        raise StoreUnavailableError("timeout")

    monkeypatch.setattr(region.two.factor_store, "read", away)
    region.clock.us += 100_000_000
    for _ in range(4 * 21):
        await region.two.follower.follow()
    assert region.two.factors() == (0, 0)
    region.clock.us += 100_000_000
    for _ in range(4 * 21):
        await region.two.follower.follow()
    assert region.two.factors() == (1_000_000, 1_000_000)


async def test_a_clock_that_is_set_back_stops_nothing(region):
    for _ in range(2):
        await region.second(9.0)
    region.clock.us -= 3_600_000_000
    for _ in range(12):
        await region.second(9.0)
    (load,) = region.two.loads()
    assert (load.factor, load.reporters) == (0.2, 2)
    assert {one.offered_per_s for one in load.classes} == {100.0}
    for _ in range(12):
        await region.second(0.1)
    (load,) = region.two.loads()
    assert (load.reason, load.signal) == ("raised", "cpu")


async def test_what_cannot_be_read_on_the_board_is_dropped(region):
    await region.stores[0].execute("HSET", "tg:{load}:said:users", "evil", "garbage")
    await region.stores[0].execute("HSET", "tg:{load}:demand", "evil", "\xff")
    await region.second(0.5)
    assert set(await region.one.factor_store.reports_on("users")) == {"a", "b"}
    assert set(await region.one.factor_store.demands()) == {"n1", "n2"}
    await region.stores[0].execute("SET", "tg:{load}:factors", "garbage")
    await region.two.follower.follow()
    await region.second(0.5)
    assert region.two.loads()[0].factor == 1.0


def test_an_unsound_policy_is_refused_by_the_node():
    change = document_of(AdaptivePolicy(policy="bad", target=3.0))
    assert isinstance(change, Change)
    with pytest.raises(InvalidConfigError, match="target"):
        RuleIndex.empty("us-east").with_changes([change])
