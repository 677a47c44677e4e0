"""The look at whether a healed world agrees: it sees what is not known, and what is lost."""

import msgspec
import pytest

from data_plane.store.script_host import ScriptHost
from tools.simulate.convergence import disagreements
from tools.simulate.region import counter_key
from tools.simulate.scenario import Demand, Fault, Network, Scenario
from tools.simulate.world import World

CALM = Scenario(
    name="calm",
    duration_s=15.0,
    still_s=3.0,
    limit=200,
    window_s=4.0,
    regions={"east": 1, "west": 1},
    demand=(Demand(region="east", per_second=60, until_s=12), Demand(region="west", per_second=9, until_s=12)),
    network=Network(delay_ms=20, loss=0.3, calm_from_s=12),
)
HOST = ScriptHost()
LONG_CUT = Fault(kind="cut", at_s=6.0, groups=(("east",), ("west",)))


def ended(**changes: object) -> World:
    world = World(msgspec.structs.replace(CALM, **changes), 1, HOST)
    world.run()
    return world


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window", "sliding_log", "token_bucket", "leaky_bucket"])
@pytest.mark.parametrize("mode", ["regional", "shared", "strict"])
def test_a_healed_world_agrees(mode: str, algorithm: str):
    assert disagreements(ended(mode=mode, algorithm=algorithm)) == []


@pytest.mark.parametrize("algorithm", ["fixed_window", "token_bucket"])
def test_counts_that_are_not_known_are_named(algorithm: str):
    found = disagreements(ended(mode="shared", algorithm=algorithm, faults=(LONG_CUT,)))
    assert any(one.startswith("west knows") for one in found)


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_log", "token_bucket"])
def test_rights_that_are_lost_are_named(algorithm: str):
    """What was given is noted as taken, and is not there: then these rights are nowhere."""
    world = ended(algorithm=algorithm)
    assert world.record.transfers
    world.regions["east"].server.keyspace.execute("DEL", counter_key(0))
    [found] = disagreements(world)
    assert "never taken" in found or "lent and not borrowed" in found


def test_a_reset_that_did_not_reach_everybody_is_named():
    faults = (Fault(kind="unreachable_config", at_s=8, region="east"), Fault(kind="reset", at_s=9))
    [found] = disagreements(ended(faults=faults))
    assert "resets" in found
