"""A region in virtual time: its store, its nodes, and how requests and messages meet them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from contract.limits import capacity, reduced_rate
from data_plane.domain.regions.book import NOTHING
from data_plane.domain.regions.frame import frame_of
from data_plane.domain.regions.marker import Marker, View, joined, refusal
from data_plane.domain.regions.messages import Ask, Give
from data_plane.domain.regions.terms import Terms, quiet_id
from tidegate.simulate.engines import Buckets, Windows, engine_of
from tidegate.simulate.node import Config, SimulatedNode
from tidegate.simulate.record import Admission
from tidegate.simulate.store import Name, SimulatedStore

if TYPE_CHECKING:
    from tidegate.simulate.world import World

KEY = "counter"


class SimulatedRegion:
    """Requests come to its live nodes in turn."""

    def __init__(self, world: "World", name: str, config: Config) -> None:
        scenario = world.scenario
        self.world = world
        self.name = name
        self.peers = [peer for peer in scenario.regions if peer != name]
        self.offset_us = round(scenario.clocks.get(name, 0.0) * 1e6)
        self.most_ahead_us = self.offset_us
        self.stepped_forward_us = 0
        self.engine = engine_of(scenario)
        self.rule = scenario.rule()
        self.frame = frame_of(self.rule, world.timing)
        self.rate, self.unit = reduced_rate(max(1, scenario.limit), self.frame_window_us())
        self.size = capacity(self.rule)
        self.first_config = config
        self.nodes = [
            SimulatedNode(number, name, self.peers, config, world.rules, world.timing)
            for number in range(scenario.nodes)
        ]
        self._turn = 0
        self._incarnations = 0
        self._runs = 0
        policy = "allkeys-lru" if name in scenario.evicting else "noeviction"
        self.store = SimulatedStore(self.new_run_id(), policy)
        self.knows_first = True
        """Whether the control plane knows that no store of this region was ever lost."""
        self.store.heard = dict.fromkeys(self.peers, self.clock_us())

    def frame_window_us(self) -> int:
        """The window that the limit is counted in."""
        return self.rule.window_us or 1

    def clock_us(self) -> int:
        """The region's time."""
        return self.world.timeline.now_us + self.offset_us

    def step_clock(self, by_us: int) -> None:
        """The region's clock is set."""
        self.offset_us += by_us
        self.most_ahead_us = max(self.most_ahead_us, self.offset_us)
        self.stepped_forward_us += max(0, by_us)

    def new_run_id(self) -> str:
        """A server that starts has a new one."""
        self._runs += 1
        return f"{self.name}-{self._runs}"

    def live_nodes(self) -> Sequence[SimulatedNode]:
        """Those that run."""
        return [node for node in self.nodes if node.is_alive]

    def any_node(self) -> SimulatedNode | None:
        """The next live one."""
        live = self.live_nodes()
        self._turn += 1
        return live[self._turn % len(live)] if live else None

    def connect(self, node: SimulatedNode) -> bool:
        """Whether this node may use the store: it looks at the server first when that is another one than before."""
        store, world = self.store, self.world
        if node.run_id != store.run_id or node.view is None:
            marker = joined(
                store.marker,
                run_id=store.run_id,
                policy=store.policy,
                revision=node.config.revision,
                now_us=self.clock_us(),
                fresh=self._incarnations + 1,
                first=self.knows_first,
                rules=world.rules,
            )
            if not isinstance(marker, Marker):
                world.record.refusals[marker] += 1
                return False
            if store.marker is None or marker.incarnation != store.marker.incarnation:
                self._incarnations += 1
                self.knows_first = False
                store.heard = dict.fromkeys(self.peers, self.clock_us())
                store.handed_back_by.clear()
            store.marker, node.run_id = marker, store.run_id
            node.view = View(marker.incarnation, node.config.revision)
        node.view = node.view._replace(revision=node.config.revision)
        why = refusal(store.marker, node.view, world.rules)
        if why is None:
            return True
        world.record.refusals[why] += 1
        if why in {"no_marker", "other_incarnation"}:
            node.view = None
        return False

    def terms(self, node: SimulatedNode) -> Terms:
        """What this node hands to a step now."""
        marker, world = self.life(), self.world
        scenario = world.scenario
        known = (node.config, marker.incarnation, node.asker.horizon_us())
        if node.terms is not None and node.terms[0] == known:
            return node.terms[1]
        terms = Terms(
            algorithm=scenario.algorithm,
            frame=self.frame,
            schedule=node.config.schedule,
            incarnation=marker.incarnation,
            generation=node.config.generation,
            quiet_id=quiet_id(self.frame, marker.birth_us, world.timing.skew_us, world.rules),
            birth_us=marker.birth_us,
            skew_us=world.timing.skew_us,
            horizon_us=node.asker.horizon_us(),
            rate=self.rate,
            unit=self.unit,
            size=self.size,
            region=self.name,
            shares=node.config.shares,
            rules=world.rules,
        )
        node.terms = (known, terms)
        return terms

    def life(self) -> Marker:
        """The marker that a connected node has found or made."""
        if self.store.marker is None:
            raise LookupError("no node has connected to this store yet")
        return self.store.marker

    def trader(self) -> Windows | Buckets:
        """The engine of a mode with rights."""
        if not isinstance(self.engine, Windows | Buckets):
            raise TypeError("counts are not asked for")
        return self.engine

    def silent(self) -> tuple[str, ...]:
        """Peers not heard completely for too long, by name."""
        if not self.world.tells:
            return ()
        oldest_us = self.clock_us() - self.world.timing.stale_after_us
        heard = self.store.heard
        return tuple(peer for peer in self.peers if heard.get(peer, 0) < oldest_us)

    def is_awaiting(self) -> bool:
        """Whether this store may have forgotten counts that a peer, not silent, has not handed back."""
        marker = self.store.marker
        if marker is None or not marker.birth_us or not self.world.rules.cells_handed_back:
            return False
        last_us = marker.birth_us + self.world.timing.skew_us + 2 * self.frame_window_us()
        if self.clock_us() > last_us:
            return False
        silent = self.silent()
        return any(peer not in silent and peer not in self.store.handed_back_by for peer in self.peers)

    def arrive(self, cost: int) -> bool:
        """One request; whether it was admitted."""
        world = self.world
        node = self.any_node()
        world.record.arrivals[self.name].append((world.timeline.now_us, cost))
        if node is None or not self.connect(node):
            world.record.denied[self.name] += cost
            return False
        if world.scenario.mode == "shared" and self.is_awaiting():
            world.record.denied[self.name] += cost
            world.record.refusals["awaiting_counts"] += 1
            return False
        now_us = self.clock_us()
        terms = self.terms(node)
        name = (KEY, terms.generation)
        state, book = self.store.load(name, now_us)
        taken = self.engine.decide(terms, state, book, self.silent(), cost, now_us)
        if taken.state is not None:
            self.store.save(name, taken.state, taken.book, self.engine.forget_us(terms, taken.state))
        if taken.allowed:
            world.record.admit(Admission(world.timeline.now_us, self.name, cost, taken.id, now_us, terms.generation))
            world.teller.changed(self, node, name)
        else:
            world.record.denied[self.name] += cost
        if taken.low and world.scenario.mode == "strict":
            self.seek(node, name, cost)
        return taken.allowed

    def seek(self, node: SimulatedNode, name: Name, cost: int) -> None:
        """Ask a peer for rights if there is too little for requests of ``cost``, and this node knows whom."""
        if not node.is_alive or name[1] != node.config.generation or not self.connect(node):
            return
        now_us = self.clock_us()
        terms = self.terms(node)
        state, book = self.store.load(name, now_us)
        basis = self.trader().basis(terms, state, book, cost, now_us)
        if not basis.low:
            return
        peer = node.asker.whom(name, basis.id, dict(node.config.shares), cost - basis.have, now_us)
        if peer is None:
            return
        life = self.world.last_known_life(self.name, peer)
        known = next((gift for donor, one, gift in basis.known if donor == peer and one == life), NOTHING)
        ask = Ask(
            key=name[0],
            generation=name[1],
            revision=node.config.revision,
            id=basis.id,
            sender=self.name,
            incarnation=terms.incarnation,
            to_incarnation=life,
            known=known,
            have=basis.have,
            rate=basis.rate,
            sent_us=now_us,
        )
        look_again_us = node.asker.asked(name, ask, peer, now_us)
        self.world.links.send(self.name, peer, self.world.regions[peer].asked, node.number, cost, ask)
        self.world.timeline.at(look_again_us - self.offset_us, self.seek, node, name, cost)  # it may get lost

    def asked(self, from_node: int, cost: int, ask: Ask) -> None:
        """A peer's question arrives; its node and the cost that it asks for are the asker's own notes."""
        node = self.any_node()
        if node is None or not self.connect(node):
            return
        self.world.learn_life(self.name, ask.sender, ask.incarnation)
        name, now_us = (ask.key, node.config.generation), self.clock_us()
        terms = self.terms(node)
        state, book = self.store.load(name, now_us)
        moved = self.trader().give(terms, state, book, ask, now_us)
        if moved is None or moved.answer is None:
            return
        self.store.save(name, moved.state, moved.book, self.engine.forget_us(terms, moved.state))
        node.asker.heard(name, ask)
        asker = self.world.regions[ask.sender]
        self.world.links.send(self.name, ask.sender, asker.given, from_node, cost, moved.answer)

    def given(self, to_node: int, cost: int, answer: Give) -> None:
        """A peer's answer arrives; if the node that asked is gone, another one takes it."""
        node = self.nodes[to_node] if self.nodes[to_node].is_alive else self.any_node()
        if node is None or not self.connect(node):
            return
        self.world.learn_life(self.name, answer.sender, answer.incarnation)
        name, now_us = (answer.key, node.config.generation), self.clock_us()
        terms = self.terms(node)
        state, book = self.store.load(name, now_us)
        moved = self.trader().receive(terms, state, book, answer, cost, now_us)
        gained = 0
        if moved is not None:
            gained = moved.gained
            if gained:
                self.store.save(name, moved.state, moved.book, self.engine.forget_us(terms, moved.state))
                self.world.record.transfers.append((self.world.timeline.now_us, answer.sender, self.name, gained))
        node.asker.answered(name, answer, gained, now_us, refill_us=int(isinstance(self.engine, Buckets)))
        if moved is not None and moved.low:
            self.seek(node, name, cost)

    def lose(self, store: SimulatedStore) -> None:
        """The server starts again with what ``store`` holds."""
        store.run_id = self.new_run_id()
        self.store = store
        self.world.record.lost_stores[self.name] += 1
        for node in self.live_nodes():
            self.connect(node)

    def restart(self, node: SimulatedNode, config: Config) -> None:
        """A node starts with nothing but a config."""
        self.nodes[node.number] = SimulatedNode(
            node.number, self.name, self.peers, config, self.world.rules, self.world.timing
        )
