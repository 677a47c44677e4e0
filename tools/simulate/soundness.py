"""Checks beyond a scenario's form: regions, nodes and windows that it names exist, and its figures make sense."""

from collections.abc import Iterator
from itertools import chain

from tools.simulate.scenario import Scenario

NEED_NO_REGION = {"cut", "reset"}


def require_sound(scenario: Scenario) -> None:
    """Raise ``ValueError`` that names the first member that cannot be run."""
    for place, problem in chain(_figures(scenario), _regions(scenario), _parts(scenario)):
        raise ValueError(f"{problem} - at `$.{place}`")


def _figures(scenario: Scenario) -> Iterator[tuple[str, str]]:
    if not scenario.regions:
        yield "regions", "names no region"
    for place in ("limit", "nodes", "window_s", "duration_s", "epoch_s"):
        if getattr(scenario, place) <= 0:
            yield place, "must be above 0"


def _regions(scenario: Scenario) -> Iterator[tuple[str, str]]:
    for place, region in _named(scenario):
        if region not in scenario.regions:
            yield place, f"there is no region {region!r}"


def _parts(scenario: Scenario) -> Iterator[tuple[str, str]]:
    for number, fault in enumerate(scenario.faults):
        if fault.kind == "kill_node" and not 0 <= fault.node < scenario.nodes:
            yield f"faults[{number}].node", f"there is no node {fault.node} of {scenario.nodes}"
    for number, change in enumerate(scenario.changes):
        if set(change.shares) != set(scenario.regions):
            yield f"changes[{number}].shares", "must name every region and no other"
    for place in ("least_used", "most_admitted"):
        for window in getattr(scenario.expect, place):
            if not (window.isascii() and window.isdigit()):
                yield f"expect.{place}", f"{window!r} is not the number of a window"


def _named(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Each region that the scenario names, with the place."""
    for number, demand in enumerate(scenario.demand):
        yield f"demand[{number}].region", demand.region
    for number, fault in enumerate(scenario.faults):
        if fault.region or fault.kind not in NEED_NO_REGION:
            yield f"faults[{number}].region", fault.region
        if fault.peer:
            yield f"faults[{number}].peer", fault.peer
        yield from ((f"faults[{number}].groups", region) for group in fault.groups for region in group)
    yield from (("clocks", region) for region in scenario.clocks)
    yield from (("evicting", region) for region in scenario.evicting)
    for place in ("most_denied", "least_admitted"):
        yield from ((f"expect.{place}", region) for region in getattr(scenario.expect, place))
