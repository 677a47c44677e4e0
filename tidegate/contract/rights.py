"""How regions move rights of ``strict`` limits: questions, and answers with all that was ever given.

Figures are absolute, so a question or an answer may be lost, doubled, late or overtaken without harm. An answer is
signed too: it makes its reader admit more.
"""

import hashlib

import msgspec

RIGHTS_VERSION = 1
MAX_ASKS = 500
MAX_KEY_BYTES = 1_024
MAX_UNITS = 2**47
"""Every count of units in a message is below: what a region can own of one limit is far less."""
MAX_QUANTA = 2**53
"""All tokens ever given to one peer in an epoch are fewer: up to here doubles are exact. Who gives keeps to it
(``lua/transfers.lua``), and who receives takes all that keeps to it: what it refused the giver would have lost.
"""


class Ask(msgspec.Struct, frozen=True, array_like=True):
    """A request for rights on the counter ``key`` under the window (or loan epoch) ``id``.

    ``units`` and ``quanta`` are all that the asker was given under this id by ``to_incarnation`` of the donor's store
    (0: it knows none; quanta are tokens that move with a bucket's capacity). ``have`` are its rights in units (buckets:
    its capacity), ``rate`` its demand in units a second. By ``unit`` and ``size`` the asker counts its bucket (0: a
    window, or a version before 2026-12): a donor that counts by others gives nothing.
    """

    key: bytes
    id: int
    to_incarnation: int
    units: int
    quanta: int
    have: int
    rate: int
    unit: int = 0
    size: int = 0


class Asks(msgspec.Struct, frozen=True, kw_only=True):
    """Questions of one region and incarnation of its store. ``sent_at`` is epoch seconds by its clock."""

    version: int = RIGHTS_VERSION
    region: str
    incarnation: int
    sent_at: float
    asks: tuple[Ask, ...]


class Gift(msgspec.Struct, frozen=True, array_like=True):
    """The answer to one question: all that the donor ever gave this incarnation of the asker under ``id``.

    ``have`` is what the donor keeps; ``is_empty`` says that it had nothing to add.
    """

    key: bytes
    id: int
    units: int
    quanta: int
    have: int
    is_empty: bool


def is_sayable(gift: Gift) -> bool:
    """Whether a gift keeps to the bounds of a message."""
    return (
        0 <= gift.units < MAX_UNITS
        and 0 <= gift.quanta < MAX_QUANTA
        and 0 <= gift.have < MAX_UNITS
        and 0 < len(gift.key) <= MAX_KEY_BYTES
    )


class Gifts(msgspec.Struct, frozen=True, kw_only=True):
    """Answers to ``Asks``, by one incarnation of the donor's store to one of the asker's.

    A question that the donor cannot answer now (a limit that it does not know yet) has no gift; the asker asks again.
    """

    version: int = RIGHTS_VERSION
    region: str
    incarnation: int
    to_incarnation: int
    sent_at: float
    gifts: tuple[Gift, ...]


def signed_asks(to_region: str, body: bytes) -> bytes:
    """The bytes that an asking region signs: they bind its questions to their reader."""
    return b"tidegate asks\0" + to_region.encode() + b"\0" + hashlib.sha256(body).digest()


def signed_gifts(to_region: str, asked: bytes, body: bytes) -> bytes:
    """The bytes that a giving region signs: they bind its answer to the reader and to the question's body."""
    digests = hashlib.sha256(asked).digest() + hashlib.sha256(body).digest()
    return b"tidegate gifts\0" + to_region.encode() + b"\0" + digests
