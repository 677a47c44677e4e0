"""What the deciding node makes of who reports, who is asked and who falls silent: on a real store, the clock driven."""

import msgspec
import pytest

from data_plane.load.controller import Report
from data_plane.store.ports import StoreUnavailableError
from testing.load_region import POLICY, USERS, load_region
from testing.node import document_of
from tidegate.contract.load import Backend, LoadReport, Pull


@pytest.fixture
async def region(valkey_url):
    async with load_region(valkey_url) as running:
        yield running


async def test_silence_holds_and_then_recovers(region):
    for _ in range(3):
        await region.second(9.0)
    for _ in range(12):
        await region.second(None)
    (load,) = region.one.loads()
    assert (load.factor, load.reason, load.reporters) == (0.5, "reporters_missing", 0)
    for _ in range(15):
        await region.second(None)
    (load,) = region.one.loads()
    assert 0.5 < load.factor < 1.0
    assert load.reason == "recovering_unseen"


async def test_one_reporter_alone_cuts_nothing(region):
    for _ in range(6):
        await region.second(50.0, by=("liar",))
    (load,) = region.one.loads()
    assert (load.factor, load.reason, load.reporters) == (1.0, "no_reports", 1)


async def test_a_gateway_is_one_voice_through_several_nodes(region):
    for _ in range(6):
        for member in (region.one, region.two):
            for _ in range(10):
                member.reports.take_served("edge", "users", 200, 900.0)
        await region.second(None)
    (load,) = region.one.loads()
    assert (load.factor, load.reporters) == (1.0, 1)
    for _ in range(4):
        for member, gateway in ((region.one, "edge"), (region.two, "other")):
            for _ in range(10):
                member.reports.take_served(gateway, "users", 200, 900.0)
        await region.second(None)
    (load,) = region.one.loads()
    assert load.factor < 1.0
    assert load.signal == "latency_ms"


async def test_pulls_are_one_more_reporter(region):
    await region.second(None)
    region.one.servers.answer = 3.0
    for _ in range(5):
        await region.one.decider.pull()
        await region.second(3.0, by=("a",))
    assert region.one.servers.asked[0] == ("main", "up")
    (load,) = region.one.loads()
    assert load.factor < 1.0
    region.one.servers.answer = "timeout"
    await region.one.decider.pull()
    assert region.one.decider.pull_failures == {"timeout": 1}


async def test_a_signal_that_is_no_longer_pulled_grows_stale_beside_one_that_is(region):
    pulls = tuple(Pull(server="main", signal=signal, query=signal) for signal in ("cpu", "latency_ms"))
    alone = msgspec.structs.replace(POLICY, min_reporters=1)
    changes = [document_of(alone), document_of(msgspec.structs.replace(USERS, pulls=pulls))]
    region.index = region.index.with_changes(changes)
    region.one.servers.answers = {"cpu": 0.5, "latency_ms": 10.0}
    await region.second(None)
    for _ in range(2):
        await region.one.decider.pull()
        await region.second(None)
    assert region.one.loads()[0].signal == "cpu"
    region.one.servers.answers["cpu"] = "timeout"
    for _ in range(12):
        await region.one.decider.pull()
        await region.second(None)
    assert region.one.loads()[0].signal == "latency_ms", "what cpu was is not what it is"


@pytest.mark.parametrize("why", ["nothing is protected", "the store is away"])
async def test_what_gateways_report_is_of_the_last_second_whenever_it_is_pinned(region, monkeypatch, why):
    async def away():
        raise StoreUnavailableError("timeout")

    with monkeypatch.context() as patched:
        if why == "the store is away":
            patched.setattr(region.one.factor_store, "read", away)
        else:
            region.index = region.index.with_changes([document_of(Backend(backend="users"))])
        for _ in range(5):
            region.one.reports.take_served("edge", "users", 500, 9_000.0)
            region.one.reports.take("lb", LoadReport(backend="users", cpu=9.0), region.clock.us)
            await region.second(None, members=(region.one,))
    region.index = region.index.with_changes([document_of(USERS)])
    region.one.reports.take_served("edge", "users", 200, 20.0)
    await region.second(None, members=(region.one,))
    stored = await region.one.factor_store.reports_on("users")
    assert set(stored) == {"gateway:edge@n1"}
    entry = msgspec.json.decode(stored["gateway:edge@n1"], type=Report)
    assert (entry.weight, entry.signals) == (1, {"latency_ms": 20.0, "error_rate": 0.0})
