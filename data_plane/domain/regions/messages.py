"""What regions say to each other. Every message names its sender's incarnation and when it was sent (sender's clock).

All figures are absolute: a message may be lost, doubled, late or overtaken without harm.
"""

from typing import NamedTuple

from data_plane.domain.regions.book import Cell, Gift, Life


class Ask(NamedTuple):
    """A request for rights of ``key`` under ``id``.

    ``known`` is all that the asker was given by ``to_incarnation`` (0: it knows none) under this id; ``have`` its
    rights (buckets: capacity) in units, ``rate`` its demand in units a second.
    """

    key: str
    generation: int
    revision: int
    id: int
    sender: str
    incarnation: int
    to_incarnation: int
    known: Gift
    have: int
    rate: int
    sent_us: int


class Give(NamedTuple):
    """The answer: all that the donor ever gave this incarnation of the asker under ``id``; ``have`` is what it keeps.

    ``is_empty`` says that the donor had nothing to add; ``asked_us`` echoes the question's ``sent_us``.
    """

    key: str
    generation: int
    id: int
    sender: str
    incarnation: int
    to_incarnation: int
    total: Gift
    have: int
    is_empty: bool
    asked_us: int
    sent_us: int


class Told(NamedTuple):
    """One cell of the sender's own or, handing back, of an earlier life of the receiver's."""

    key: str
    generation: int
    life: Life
    cell: Cell


class Tell(NamedTuple):
    """A slice's news for one peer; without ``news`` a heartbeat.

    ``complete_us``: every change up to then (sender's clock) is in here or was acknowledged before.
    ``hands_back``: these are all cells of the receiver's earlier lives that the sender holds.
    """

    slice: int
    sender: str
    incarnation: int
    complete_us: int
    sent_us: int
    news: tuple[Told, ...] = ()
    hands_back: bool = False


class Ack(NamedTuple):
    """Answers a ``Tell`` by its ``sent_us``: merged and stored, but for ``waiting``: positions it cannot place yet."""

    slice: int
    sender: str
    incarnation: int
    told_us: int
    waiting: tuple[int, ...] = ()
