"""Whether a healed world agrees: every count is known everywhere, and no right is lost.

Look at a world that has ended with its links whole, its nodes alive, and nobody asking for a few seconds.
"""

from contract.limits import BUCKET_ALGORITHMS
from data_plane.domain.regions.book import NOTHING, Book, Cell, Life
from data_plane.domain.regions.frame import id_at
from data_plane.domain.regions.loans import Loan, advanced
from data_plane.domain.regions.quotas import quota_at
from data_plane.domain.regions.rights import Rights, rolled
from data_plane.domain.regions.terms import Terms, share_at
from tidegate.simulate.region import KEY, SimulatedRegion
from tidegate.simulate.world import World


def disagreements(world: World) -> list[str]:
    """What has not come together again, in words; empty where all has."""
    generations = {node.config.generation for region in world.regions.values() for node in region.nodes}
    if len(generations) > 1:
        return [f"resets: nodes stand at {sorted(generations)}"]
    found = _unknown_counts(world) if world.tells else []
    if world.scenario.mode != "shared":
        found += _lost_loans(world) if world.scenario.algorithm in BUCKET_ALGORITHMS else _lost_rights(world)
    return found


def _keys_of(region: SimulatedRegion) -> tuple[Terms, object, Book] | None:
    """The terms of a node, and the counter's two keys; ``None`` where the store refuses every node."""
    node = region.any_node()
    if node is None or not region.connect(node):
        return None
    return (region.terms(node), *region.store.load((KEY, node.config.generation), region.clock_us()))


def _unknown_counts(world: World) -> list[str]:
    """Own counts of this window and the one before that some other region knows otherwise."""
    found = []
    is_window = world.scenario.algorithm not in BUCKET_ALGORITHMS
    kept = {name: _keys_of(region) for name, region in world.regions.items()}
    for name, keys in kept.items():
        own = [] if keys is None or keys[1] is None else world.regions[name].engine.cells(keys[1])
        for id, cell in own:
            if is_window and id < id_at(world.regions[name].frame, world.regions[name].clock_us()) - 1:
                continue
            life: Life = (name, world.regions[name].life().incarnation, id)
            for peer, theirs in kept.items():
                known = theirs[2].cells.get(life, Cell(0)) if theirs is not None else cell
                if peer != name and known != cell:
                    found.append(f"{peer} knows {known.taken} units of {name}, which are {cell.taken}")
    return found


def _lost_rights(world: World) -> list[str]:
    """Rights of the last window with demand: what is owned and what is on its way are the limit again."""
    region = next(iter(world.regions.values()))
    id = id_at(region.frame, world.when_us(world.scenario.duration_s - world.scenario.still_s) - 1)
    whole = 0
    books: dict[Life, Book] = {}
    for name, region in world.regions.items():
        keys = _keys_of(region)
        if keys is None:
            whole += quota_at(region.nodes[0].config.schedule, id).share
            continue
        terms, state, book = keys
        rights = rolled(terms, state if isinstance(state, Rights) else None, region.clock_us())
        figures = rights.now if id == rights.id else rights.before if id < rights.id else rights.ahead
        whole += share_at(terms, id) + figures.net
        books[(name, terms.incarnation, id)] = book
    whole += _on_the_way(books)
    limit = world.control.limit_in_force(id)
    return [] if whole == limit else [f"rights of the last window sum to {whole} of {limit}"]


def _lost_loans(world: World) -> list[str]:
    """Capacity of this epoch: what is borrowed and what is on its way is what was lent."""
    open_loans = 0
    books: dict[Life, Book] = {}
    for name, region in world.regions.items():
        keys = _keys_of(region)
        if keys is None:
            continue
        terms, state, book = keys
        loan = advanced(terms, state if isinstance(state, Loan) else None, region.clock_us())
        open_loans += loan.lent - loan.borrowed
        books[(name, terms.incarnation, loan.epoch)] = book
    if len({epoch for *_, epoch in books}) > 1:
        return []  # some clocks have passed the end of an epoch, others have not
    on_the_way = _on_the_way(books)
    return (
        [] if open_loans == on_the_way else [f"{open_loans} units are lent and not borrowed, {on_the_way} on the way"]
    )


def _on_the_way(books: dict[Life, Book]) -> int:
    """Units given to lives that still are and have not taken them yet."""
    return sum(
        book.given.get(to, NOTHING).units - books[to].received.get(giver, NOTHING).units
        for giver, book in books.items()
        for to in books
        if to != giver
    )
