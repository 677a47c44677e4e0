"""What an agent's rights client remembers of questions and answers about one counter.

All figures are absolute: a message may be lost, doubled, late or overtaken without harm.
"""

from typing import NamedTuple


class Gift(NamedTuple):
    """All that one region ever gave another under an id: units of rights or capacity; for buckets tokens in quanta."""

    units: int = 0
    quanta: int = 0


NOTHING = Gift()


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
