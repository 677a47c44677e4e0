"""How simulated regions tell each other their counts: marks in stores, a lease on telling, messages and answers."""

from typing import TYPE_CHECKING

from data_plane.domain.regions.counts import Counter
from data_plane.domain.regions.messages import Ack, Tell, Told
from data_plane.domain.regions.telling import Marked, Teller, is_pressing
from tidegate.simulate.node import SimulatedNode
from tidegate.simulate.store import Name

if TYPE_CHECKING:
    from tidegate.simulate.region import SimulatedRegion
    from tidegate.simulate.world import World


class Telling:
    """The exchange of counts, for the whole world; off where no mode needs it."""

    def __init__(self, world: "World") -> None:
        self._world = world

    def begin(self) -> None:
        """Set every node's tick and sweep going."""
        world = self._world
        for region in world.regions.values():
            for node in region.nodes:
                first_us = world.timeline.now_us + world.chance.randrange(world.timing.tick_us)
                world.timeline.at(first_us, self._tick, region, node.number)
            world.timeline.at(world.timeline.now_us + world.timing.sweep_us, self._sweep, region)

    def changed(self, region: "SimulatedRegion", node: SimulatedNode, name: Name) -> None:
        """A counter's own cells changed."""
        if not self._world.tells:
            return
        marks = region.store.marks if self._world.rules.marks_in_store else node.marks
        marks.setdefault(name, region.clock_us())

    def _sweep(self, region: "SimulatedRegion") -> None:
        self._mark_everything(region)
        self._world.timeline.at(self._world.timeline.now_us + self._world.timing.sweep_us, self._sweep, region)

    def _mark_everything(self, region: "SimulatedRegion") -> None:
        for name in region.store.hot:
            region.store.marks.setdefault(name, region.clock_us())

    def _tick(self, region: "SimulatedRegion", number: int) -> None:
        world = self._world
        world.timeline.at(world.timeline.now_us + world.timing.tick_us, self._tick, region, number)
        node = region.nodes[number]
        if not node.is_alive or not region.connect(node) or not self._hold_lease(region, node):
            return
        now_us = region.clock_us()
        marker = region.life()
        marked = self._marked(region, node)
        for peer in region.peers:
            told = node.teller.tell(peer, marker.incarnation, marked, now_us)
            if told is not None:
                world.links.send(region.name, peer, self._told, world.regions[peer], number, told)
            self._hand_back(region, number, peer)
        for one in node.teller.settled(marked, now_us):
            self._settle(region, node, one)
        node.teller.forget({(one.key, one.generation): one for one in marked})

    def _settle(self, region: "SimulatedRegion", node: SimulatedNode, one: Marked) -> None:
        """Unmark what is still as it was told."""
        name = (one.key, one.generation)
        marks = region.store.marks if self._world.rules.marks_in_store else node.marks
        marks.pop(name, None)
        if not self._world.rules.marks_in_store:
            region.store.marks.pop(name, None)

    def _hold_lease(self, region: "SimulatedRegion", node: SimulatedNode) -> bool:
        """Take or keep the lease on the slice: three ticks. A new holder tells everything once."""
        holder, until_us = region.store.lease
        now_us = region.clock_us()
        if holder != node.number and now_us < until_us:
            node.holds_lease = False
            return False
        region.store.lease = (node.number, now_us + 3 * self._world.timing.tick_us)
        if not node.holds_lease or holder != node.number:
            node.holds_lease = True
            node.teller = Teller(
                region.name,
                0,
                region.peers,
                self._world.timing,
                self._world.rules,
                resend_us=2 * self._world.timing.tick_us,
            )
            if self._world.rules.marks_in_store:
                self._mark_everything(region)
        return True

    def _marked(self, region: "SimulatedRegion", node: SimulatedNode) -> list[Marked]:
        """The counters with news, as they are now."""
        terms = region.terms(node)
        marks = dict(region.store.marks)
        if not self._world.rules.marks_in_store:
            marks.update(node.marks)
        found = []
        for name, since_us in marks.items():
            state, _ = region.store.load(name, region.clock_us())
            if state is None or state.incarnation != terms.incarnation:
                region.store.marks.pop(name, None)
                node.marks.pop(name, None)
                continue
            version = tuple(((region.name, terms.incarnation, id), cell) for id, cell in region.engine.cells(state))
            units = sum(cell.taken for _, cell in version)
            pressing = is_pressing(
                units - node.told.get(name, 0), self._room(region), len(region.peers) + 1, self._world.rules
            )
            if pressing or units < node.told.get(name, 0):
                node.told[name] = units
            found.append(Marked(name[0], name[1], version, since_us, pressing))
        return found

    def _room(self, region: "SimulatedRegion") -> int:
        """Roughly what is left of the limit as known here."""
        node = region.live_nodes()[0]
        name = ("counter", node.config.generation)
        state, _ = region.store.load(name, region.clock_us())
        limit = node.config.schedule[-1].limit
        if not isinstance(state, Counter):
            return limit
        return max(0, limit - state.now.taken - state.now.remote)

    def _hand_back(self, region: "SimulatedRegion", number: int, peer: str) -> None:
        """Tell a peer that lost its store all that is known here, until it says that it knows: what its earlier lives
        had counted, and our own counts, which those lives had acknowledged.
        """
        store, world = region.store, self._world
        life = store.peer_lives.get(peer)
        if life is None or store.handed_to.get(peer) == life or not world.rules.cells_handed_back:
            return
        news = tuple(
            Told(name[0], name[1], one, cell)
            for name, book in store.books.items()
            for one, cell in book.cells.items()
            if one[0] == peer and one[1] != life
        )
        marker = region.life()
        now_us = region.clock_us()
        for name, (state, _) in store.hot.items():
            own = region.engine.cells(state) if state.incarnation == marker.incarnation else ()
            news += tuple(Told(*name, (region.name, marker.incarnation, id), cell) for id, cell in own)
        back = Tell(0, region.name, marker.incarnation, 0, now_us, news, hands_back=True)
        world.links.send(region.name, peer, self._told, world.regions[peer], number, back)

    def _told(self, region: "SimulatedRegion", from_node: int, tell: Tell) -> None:
        """A peer's news arrive."""
        node = region.any_node()
        if node is None or not region.connect(node):
            return
        store, now_us, terms = region.store, region.clock_us(), region.terms(node)
        waiting = []
        for position, one in enumerate(tell.news):
            if one.generation > terms.generation and self._world.rules.generation_checked:
                waiting.append(position)
                continue
            if one.generation != terms.generation and self._world.rules.generation_checked:
                continue
            name = (one.key, terms.generation)
            state, book = store.load(name, now_us)
            merged = region.engine.merge(terms, state, book, region.silent(), one.life, one.cell, now_us)
            if merged is not None:
                store.save(name, merged[0], merged[1], region.engine.forget_us(terms, merged[0]))
        if tell.hands_back:
            store.handed_back_by.add(tell.sender)
        else:
            store.peer_lives[tell.sender] = max(tell.incarnation, store.peer_lives.get(tell.sender, 0))
            as_of_us = now_us - max(0, tell.sent_us - tell.complete_us)
            store.heard[tell.sender] = max(as_of_us, store.heard.get(tell.sender, 0))
        self._world.learn_life(region.name, tell.sender, tell.incarnation)
        ack = Ack(0, region.name, terms.incarnation, tell.sent_us, tuple(waiting))
        sender = self._world.regions[tell.sender]
        self._world.links.send(region.name, tell.sender, self._acknowledged, sender, from_node, tell.hands_back, ack)

    def _acknowledged(self, region: "SimulatedRegion", number: int, hands_back: bool, ack: Ack) -> None:
        if hands_back:
            region.store.handed_to[ack.sender] = ack.incarnation
            return
        node = region.nodes[number]
        if node.is_alive and not ack.waiting and node.teller.acknowledged(ack, region.clock_us()):
            self._mark_everything(region)
