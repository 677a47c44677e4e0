"""The gates of a node: one a backend and class, made at the first request, told new factors four times a second."""

from collections.abc import Collection, Iterable, Mapping

import msgspec

from data_plane.config.load_classes import FULL, hour_seed
from data_plane.config.load_gate import ClassGate, GatePass
from data_plane.load.shared import BackendFactors


class Gates:
    """Gates by backend and priority; both come from the configuration."""

    def __init__(self) -> None:
        self._gates: dict[tuple[str, int], ClassGate] = {}
        self._factors: dict[str, BackendFactors] = {}
        self._seed = 0

    def open(self, gate_pass: GatePass) -> ClassGate:
        """The gate of a pass, found once and kept with it."""
        name = (gate_pass.backend, gate_pass.priority)
        gate = self._gates.get(name)
        if gate is None:
            gate = self._gates[name] = ClassGate()
            self._set(name, gate)
        gate_pass.gate = gate
        return gate

    def apply(self, factors: Iterable[BackendFactors], now_us: int) -> None:
        """New factors for all backends; one that is not among them admits everybody."""
        self._factors = {one.backend: one for one in factors}
        self._seed = hour_seed(now_us)
        for name, gate in self._gates.items():
            self._set(name, gate)

    def relax(self, step: int, now_us: int, held: Collection[str]) -> None:
        """Nobody decides: come back by ``step`` millionths, class by class, but for backends that are ``held``."""
        relaxed = []
        for one in self._factors.values():
            if one.backend in held:
                relaxed.append(one)
                continue
            classes = {priority: min(FULL, factor + step) for priority, factor in one.classes.items()}
            relaxed.append(msgspec.structs.replace(one, whole=min(FULL, one.whole + step), classes=classes))
        self.apply(relaxed, now_us)

    def offered(self) -> Mapping[tuple[str, int], int]:
        """Units asked for since the start, by backend and priority."""
        return {name: gate.offered for name, gate in self._gates.items()}

    def own(self) -> Mapping[tuple[str, int], int]:
        """Units of those that clients' own limits deny, since the start, by backend and priority."""
        return {name: gate.own for name, gate in self._gates.items()}

    def shed(self) -> Mapping[tuple[str, int], int]:
        """Units shed since the start, by backend and priority."""
        return {name: gate.shed for name, gate in self._gates.items()}

    def _set(self, name: tuple[str, int], gate: ClassGate) -> None:
        backend, priority = name
        one = self._factors.get(backend)
        if one is None:
            gate.set(FULL, FULL, floor=FULL, reserve=0, seed=self._seed)
            return
        factor = one.classes.get(priority, FULL)
        gate.set(factor, one.whole, floor=one.floor, reserve=one.reserve, seed=self._seed)
