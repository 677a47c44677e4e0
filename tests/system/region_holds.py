"""Leases and reservations in all regions at once: what callers were given, less what went back, against the limit."""

import asyncio
import time
from typing import NamedTuple

import httpx

from testing.region_load import most_within
from testing.region_processes import RegionProcesses

LEASED, RESERVED, SETTLED = 20, 6, 4
"""Units: asked for with a lease, estimated for a reservation, and what it cost in the end."""
DENIALS = 10
"""So many in a row, and a caller believes that nothing is left: a region may just be asking others for rights."""
PAUSE_S = 0.05


class Taken(NamedTuple):
    """Units taken in a region at a time (``time.monotonic()``), and how many of them went back."""

    region: str
    at: float
    units: int
    returned: int


async def use_up(regions: RegionProcesses, key: str) -> list[Taken]:
    """Lease, return, reserve and settle on every node of every region until all are denied."""
    taken: list[Taken] = []
    places = [(name, node) for name in regions.names for node in range(len(regions.clients[name]))]
    await asyncio.gather(*(_caller(regions, name, node, key, taken) for name, node in places))
    return taken


def used(taken: list[Taken]) -> int:
    """What was not given back."""
    return sum(one.units - one.returned for one in taken)


def bound(taken: list[Taken], limit: int, sigma_s: float) -> int:
    """How far a ``shared`` limit may be over: what all others took in sigma, for the worst region (docs/regions.md)."""
    names = {one.region for one in taken}
    most = {
        name: most_within((one.at for one in taken if one.region == name for _ in range(one.units)), sigma_s)
        for name in names
    }
    return min((len(names) - 1) * limit, max(sum(most.values()) - own for own in most.values()))


async def _caller(regions: RegionProcesses, region: str, node: int, key: str, taken: list[Taken]) -> None:
    here = regions.clients[region][node]
    there = regions.clients[region][(node + 1) % len(regions.clients[region])]
    denied = number = 0
    while denied < DENIALS:
        number += 1
        at, take = time.monotonic(), _lease if number % 2 else _reserve
        units, returned = await take(here, there, key)
        taken.append(Taken(region, at, units, returned))
        denied = 0 if units else denied + 1
        await asyncio.sleep(PAUSE_S)


async def _lease(here: httpx.AsyncClient, there: httpx.AsyncClient, key: str) -> tuple[int, int]:
    """Lease units on one node, and give some back to another of the region."""
    answer = await here.post("/v1/leases", json={"api_key": key, "units": LEASED, "ttl_s": 5})
    granted = answer.json().get("granted", 0) if answer.status_code == 200 else _denied(answer)
    if not granted:
        return 0, 0
    lease = {"lease": answer.json()["lease"], "unused": granted // 4}
    back = await there.post("/v1/leases/return", json={"returns": [lease]})
    return granted, sum(back.raise_for_status().json()["returned"])


async def _reserve(here: httpx.AsyncClient, there: httpx.AsyncClient, key: str) -> tuple[int, int]:
    """Reserve an estimate on one node, and settle it for less on another of the region."""
    answer = await here.post("/v1/reservations", json={"api_key": key, "cost": RESERVED})
    if answer.status_code != 200:
        return _denied(answer), 0
    settlement = {"reservation": answer.json()["reservation"], "cost": SETTLED}
    settled = (await there.post("/v1/reservations/settle", json=settlement)).raise_for_status().json()
    return RESERVED, settled["returned"] - settled["charged"]


def _denied(answer: httpx.Response) -> int:
    assert answer.status_code in {429, 503}, answer.text
    return 0
