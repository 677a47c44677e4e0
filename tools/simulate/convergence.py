"""Whether a healed world agrees: every count is known everywhere, and no right is lost.

Look at a world that has ended with its links whole, its processes alive, and nobody asking for a few seconds. What is
read is what the stores hold; the layouts are those of ``lua/prelude.lua`` and ``lua/rights.lua``.
"""

import struct
from typing import NamedTuple

from data_plane.replicate.count_epochs import EPOCH, PEER_COUNTS_SUFFIX
from tidegate.contract.calendar import grid_of, id_at
from tidegate.contract.limits import BUCKET_ALGORITHMS
from tools.simulate.region import SimulatedRegion, counter_key, known_cells
from tools.simulate.world import World

_WINDOWS = {0x10: (4, 3), 0x12: (6, 3), 0x14: (4, 8), 0x16: (6, 8)}
"""By first byte without the dirty bit: bytes and number of the figures."""
_NET = struct.Struct("<xI6s6s6s6s6s6s")
_LOAN = struct.Struct("<xI6s7s7s6s6s")


class Own(NamedTuple):
    """What a region counted: units and units returned in window ``id``, or, of a bucket, since its birth ``id``."""

    id: int
    taken: int
    returned: int


def disagreements(world: World) -> list[str]:
    """Descriptions of everything on which regions disagree; empty if they agree."""
    generations = {process.generation for region in world.regions.values() for process in region.processes.values()}
    if len(generations) > 1:
        return [f"resets: processes stand at {sorted(generations)}"]
    if world.scenario.mode == "shared":
        return _unknown_counts(world)
    return _lost_loans(world) if world.scenario.algorithm in BUCKET_ALGORITHMS else _lost_rights(world)


def _unknown_counts(world: World) -> list[str]:
    """Counts of this window or the one before, also those of ended epochs, of which some region has other figures.

    A bucket that has drained is no longer stored in its own region, which then sends its last units to nobody.
    """
    key = counter_key(world.control.generation)
    grid = grid_of(world.scenario.rule())
    is_window = world.scenario.algorithm not in BUCKET_ALGORITHMS
    known = {name: _counts(region, key) for name, region in world.regions.items()}
    current = {f"{name}/{_text(region, EPOCH)}": name for name, region in world.regions.items()}
    newest: dict[tuple[str, int], tuple[int, int]] = {}
    for counts in known.values():
        for cell, figures in counts.items():
            has_drained = not is_window and cell[0] in current and cell not in known[current[cell[0]]]
            if not has_drained:
                newest[cell] = max(figures, newest.get(cell, figures))
    found = []
    for name, region in world.regions.items():
        for (epoch, id), figures in newest.items():
            # Of its own counts the newest window's are read.
            is_read = current.get(epoch) != name or (epoch, id) in known[name]
            if not is_read or (is_window and id < id_at(grid, region.now_us()) - 1):
                continue
            theirs = known[name].get((epoch, id), (0, 0))
            if theirs != figures:
                found.append(f"{name} knows {theirs[0]} units of {epoch} in {id}, which are {figures[0]}")
    return found


def _counts(region: SimulatedRegion, key: bytes) -> dict[tuple[str, int], tuple[int, int]]:
    """All that a region knows of a counter, its own counts too: by epoch and window, taken and returned."""
    cells = known_cells(region, key)
    found = {(epoch, id): figures for epoch, of_epoch in cells.items() for id, figures in of_epoch.items()}
    own = _own(region, key)
    if own is not None:
        found[f"{region.name}/{_text(region, EPOCH)}", own.id] = own.taken, own.returned
    return found


def _own(region: SimulatedRegion, key: bytes) -> Own | None:
    raw = _raw(region, key)
    if raw is None:
        return None
    kind = raw[0] & 0xFE
    if kind in _WINDOWS:
        size, count = _WINDOWS[kind]
        figures = [int.from_bytes(raw[1 + size * at : 1 + size * (at + 1)], "little") for at in range(count)]
        return Own(figures[0], figures[1], figures[3] if count > 3 else 0)
    if kind == 0x32:
        figures = [int.from_bytes(raw[5 + 6 * at : 11 + 6 * at], "little") for at in range(8)]
        return Own(figures[0], figures[1], figures[3])
    if kind == 0x24:
        taken, returned, born = (
            int.from_bytes(raw[at : at + size], "little") for at, size in ((33, 6), (39, 6), (45, 7))
        )
        return Own(born, taken, returned)
    return None


def _lost_rights(world: World) -> list[str]:
    """Rights of the last window with demand that were given and never taken; the net transfers must sum to 0."""
    key = counter_key(world.control.generation)
    nets: dict[int, int] = {}
    for region in world.regions.values():
        raw = _raw(region, key)
        if raw is None or raw[0] & 0xFE not in {0x40, 0x42}:
            continue
        _, id, _, net, _, net_before, net_ahead = _NET.unpack_from(raw)
        first = int.from_bytes(id, "little")
        for number, figure in ((first, net), (first - 1, net_before), (first + 1, net_ahead)):
            nets[number] = nets.get(number, 0) + int.from_bytes(figure, "little", signed=True)
    scenario = world.scenario
    asked_us = world.start_us + round((scenario.duration_s - scenario.still_s) * 1e6) - 1
    last = id_at(grid_of(scenario.rule()), asked_us)
    lost = -nets.get(last, 0) - _on_the_way(world, key, last)
    return [f"{lost} units of rights were given and never taken"] if lost else []


def _on_the_way(world: World, key: bytes, id: int) -> int:
    """Units given under an id and not yet taken, by the transfer ledgers; the next request takes them."""
    books = [_book(region, key) for region in world.regions.values()]
    entries = [(what, units) for book in books for (what, _, of), units in book.items() if of == id]
    return sum(units if what == 1 else -units for what, units in entries)


def _book(region: SimulatedRegion, key: bytes) -> dict[tuple[int, bytes, int], int]:
    """Units by what (1: given, 2: received), the peer with its incarnation, and id (``lua/transfers.lua``)."""
    raw, state = _raw(region, key + PEER_COUNTS_SUFFIX) or b"", _raw(region, key)
    found: dict[tuple[int, bytes, int], int] = {}
    if state is not None and state[1:5] != raw[1:5]:
        return found  # of an epoch of the store that is over: the scripts take it for absent, too
    at = 5
    while raw[:1] == b"\x48" and at < len(raw):
        what, size = raw[at], raw[at + 1]
        end = at + 2 + size
        id = int.from_bytes(raw[end + 4 : end + 10], "little")
        found[what, raw[at + 2 : end + 4], id] = int.from_bytes(raw[end + 10 : end + 16], "little")
        at = end + 23
    return found


def _lost_loans(world: World) -> list[str]:
    """Capacity that was lent in this epoch and is borrowed by no region.

    Where ``burst`` changes nobody can tell: loans are rounded, each region's at its next decision.
    """
    if any(change.burst is not None for change in world.scenario.changes):
        return []
    key = counter_key(world.control.generation)
    open_loans, epochs = 0, set()
    for region in world.regions.values():
        raw = _raw(region, key)
        if raw is None or raw[0] != 0x44:
            continue
        _, epoch, _, _, lent, borrowed = _LOAN.unpack_from(raw)
        epochs.add(epoch)
        open_loans += int.from_bytes(lent, "little") - int.from_bytes(borrowed, "little")
    if len(epochs) > 1:
        return []  # some clocks have passed the end of an epoch, others have not
    for epoch in epochs:
        open_loans -= _on_the_way(world, key, int.from_bytes(epoch, "little"))
    return [f"{open_loans} units are lent and not borrowed"] if open_loans else []


def _raw(region: SimulatedRegion, key: bytes) -> bytes | None:
    return region.server.keyspace.peek(key)


def _text(region: SimulatedRegion, key: bytes) -> str:
    return (_raw(region, key) or b"").decode()
