"""Packs strict limits for ``lua/decide.lua``, and the epoch marker's value; all figures are little-endian.

An item is a rule of 25 bytes like every limit's (with the flag ``STRICT``, the length of what follows and the step to
take, as doubles), then the strict parameters, and for a step its arguments. A step's outcome has three figures, in the
places of a limit's ``remaining``, ``reset_us`` and ``delay_us``.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from data_plane.store.packing import RULE, STRICT, Outcome, head_of
from tidegate.contract.calendar import SKEW_US, WindowGrid
from tidegate.contract.limits import BUCKET_ALGORITHMS, LimitRule

NO_ID = -(2**60)
"""Before every id."""


class Total(NamedTuple):
    """All that one region gave another under an id: units of rights or capacity; for buckets tokens in quanta."""

    units: int = 0
    quanta: int = 0


NOTHING = Total()


class Quota(NamedTuple):
    """One region's share of a limit, in whole units, from ``from_id`` on; for buckets its share of the capacity."""

    from_id: int
    share: int


Schedule = tuple[Quota, ...]
"""Quotas, oldest first; the first one holds for all earlier ids too."""

LOW = 2**52
"""Added to ``reset_us`` by a decision that leaves too few rights, or was denied for lack of them."""
REFUSED = 2**51
"""Added to ``reset_us`` if the epoch marker refuses this process: nothing was decided."""

_PARAMS = struct.Struct("<ddddddddB")
_QUOTA = struct.Struct("<dd")
_GIVE = struct.Struct("<ddddddddd")
_RECEIVE = struct.Struct("<ddddd")
_KNOWN = struct.Struct("<dd")
_MARKER = struct.Struct("<dddd")
_KEPT_QUOTAS = 8
_DECIDE, _GIVE_STEP, _RECEIVE_STEP, _BASIS_STEP, _KNOWN_STEP, _USED_STEP = range(6)
_SCALE = struct.Struct("<dd")
_SCALE_AT = struct.calcsize("<ddd")


class Marker(NamedTuple):
    """The value of a store's epoch marker (``lua/epoch_marker.lua``)."""

    incarnation: int
    birth_us: int
    revision: int
    run_id: str


class StrictParams(NamedTuple):
    """A strict limit in one region as scripts read it: packed once, when the configuration is applied."""

    head: int
    packed: bytes

    @property
    def is_bucket(self) -> bool:
        """Whether rights are capacity that is lent."""
        return self.head % 8 >= 3

    @property
    def scale(self) -> tuple[int, int]:
        """A bucket's unit and size, by which loans and their tokens are counted; 0 for windows."""
        unit, size = _SCALE.unpack_from(self.packed, _SCALE_AT) if self.is_bucket else (0, 0)
        return int(unit), int(size)

    def decide(self) -> bytes:
        """The item of a decision."""
        return self._item(_DECIDE)

    def give(
        self, name: str, incarnation: int, id: int, to: int, known: Total, have: int, rate: int,
        scale: tuple[int, int] = (0, 0),
    ) -> bytes:  # fmt: skip
        """The step that gives rights to ``name``; read its outcome with ``given``."""
        arguments = _GIVE.pack(incarnation, id, to, known.units, known.quanta, have, rate, *scale)
        return self._item(_GIVE_STEP, arguments + name.encode())

    def receive(self, name: str, incarnation: int, to: int, id: int, total: Total) -> bytes:
        """The step that takes what ``name`` gave; read its outcome with ``received``."""
        arguments = _RECEIVE.pack(incarnation, to, id, total.units, total.quanta)
        return self._item(_RECEIVE_STEP, arguments + name.encode())

    def basis(self) -> bytes:
        """The step that reads the figures of a request; read its outcome with ``basis_of``."""
        return self._item(_BASIS_STEP)

    def known(self, name: str, incarnation: int, id: int) -> bytes:
        """The step that reads what an epoch of a peer gave under an id; read its outcome with ``known_total``."""
        return self._item(_KNOWN_STEP, _KNOWN.pack(incarnation, id) + name.encode())

    def used(self) -> bytes:
        """The step that reads how many units requests took here, without any transfers: its outcome's ``remaining``."""
        return self._item(_USED_STEP)

    def _item(self, step: int, arguments: bytes = b"") -> bytes:
        size = len(self.packed) + len(arguments)
        return RULE.pack(self.head, size, step, 0) + self.packed + arguments


def strict_params(
    rule: LimitRule, grid: WindowGrid, bucket: tuple[int, int, int], schedule: Schedule, revision: int
) -> StrictParams:
    """Pack strict parameters. ``bucket`` is rate, unit and size; only the newest quotas are packed."""
    quotas = schedule[-_KEPT_QUOTAS:]
    figures = bucket if rule.algorithm in BUCKET_ALGORITHMS else (grid.anchor_us, grid.ticks, grid.tick_us)
    head = _PARAMS.pack(rule.limit, grid.length_us, *figures, SKEW_US, rule.since_us, revision, len(quotas))
    return StrictParams(head_of(rule, STRICT), head + b"".join(_QUOTA.pack(*quota) for quota in quotas))


class Given(NamedTuple):
    """A donor's answer: the total given, the units it keeps, whether it had nothing to give.

    ``is_repeat``: the asker lacks earlier gifts, so nothing was added now.
    """

    total: Total
    have: int
    is_empty: bool
    is_repeat: bool


class Received(NamedTuple):
    """What a receiver gained. ``taken`` is false for an id that is over, or a gift to another epoch of its store."""

    gained: int
    have: int
    low: bool
    taken: bool


class Need(NamedTuple):
    """The figures of a request for rights, now."""

    id: int
    have: int
    rate: int
    low: bool


def given(outcome: Outcome) -> Given:
    """The outcome of ``give``."""
    have, flags = divmod(outcome.reset_us, 4)
    return Given(Total(outcome.remaining, outcome.delay_us), have, bool(flags & 1), bool(flags & 2))


def received(outcome: Outcome) -> Received:
    """The outcome of ``receive``."""
    have, low = divmod(outcome.reset_us, 2)
    return Received(outcome.remaining, have, bool(low), bool(outcome.delay_us))


def basis_of(outcome: Outcome) -> Need:
    """The outcome of ``basis``."""
    have, low = divmod(outcome.remaining, 2)
    return Need(outcome.delay_us, have, outcome.reset_us, bool(low))


def known_total(outcome: Outcome) -> tuple[Total, int]:
    """The outcome of ``known``: the total, and the incarnation of this region's store."""
    return Total(outcome.remaining, outcome.reset_us), outcome.delay_us


def is_refused(outcomes: Sequence[Outcome]) -> bool:
    """Whether the epoch marker refused a step."""
    return any(not outcome.allowed for outcome in outcomes)


def decode_marker(value: bytes) -> Marker:
    """The epoch marker's value, as ``lua/epoch_marker.lua`` writes it."""
    incarnation, revision, birth_us, _ = _MARKER.unpack_from(value)
    return Marker(int(incarnation), int(birth_us), int(revision), value[_MARKER.size :].decode())
