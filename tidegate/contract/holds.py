"""Leases and reservations: units taken from the counters now, and spent, returned or settled by the caller later.

A lease is spent by a client library that decides by itself; a reservation is an estimate whose true cost comes
afterwards. Both are holds: an opaque, signed text names what was taken, so that a node keeps no record of them.
"""

from typing import Annotated

import msgspec

from tidegate.contract.decision import MAX_BODY_BYTES, Cost, Decision, Key

MAX_LEASE_UNITS = 10_000_000
MAX_LEASE_TTL_S = 10.0
MAX_RESERVATION_TTL_S = 3_600.0
MAX_RETURNS = 100
MAX_HOLD_LENGTH = MAX_BODY_BYTES - 4 * 1024
"""Many limits on one route make a long text: what a node gives must fit into what it is returned or settled with."""

HoldText = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_HOLD_LENGTH)]
Units = Annotated[int, msgspec.Meta(ge=0, le=MAX_LEASE_UNITS)]


class Asker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose units, on which route: the members of a check that say so."""

    api_key: Key | None = None
    client: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    ip: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    method: Annotated[str, msgspec.Meta(min_length=1, max_length=32)] | None = None
    path: Annotated[str, msgspec.Meta(min_length=1, max_length=8_192)] | None = None
    endpoint: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    attributes: dict[str, str] = {}


class Return(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left of a lease. Each lease is returned once; what comes later is ignored."""

    lease: HoldText
    unused: Units


class LeaseRequest(Asker, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At most ``units`` requests of cost 1, for at most ``ttl_s``. ``returns`` are leases that end with this one."""

    units: Annotated[int, msgspec.Meta(ge=1, le=MAX_LEASE_UNITS)]
    ttl_s: Annotated[float, msgspec.Meta(gt=0, le=MAX_LEASE_TTL_S)] = 1.0
    returns: Annotated[list[Return], msgspec.Meta(max_length=MAX_RETURNS)] = []


class Returns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/leases/return``."""

    returns: Annotated[list[Return], msgspec.Meta(min_length=1, max_length=MAX_RETURNS)]


class Returned(msgspec.Struct, frozen=True, kw_only=True):
    """How many units of each lease went back, in order: none where it was returned before, or no longer counts."""

    returned: list[int]


class Lease(Decision, frozen=True, kw_only=True):
    """What was granted: ``granted`` units until ``expires_in_s`` from when the request was *sent*.

    ``granted`` is 0 and ``lease`` ``None`` where a limit cannot be leased (``reason`` says why): check each request.
    """

    granted: int
    lease: str | None
    expires_in_s: float
    reason: str | None = None


class ReservationRequest(Asker, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Take ``cost`` units, an estimate, to be settled within ``ttl_s``."""

    cost: Cost
    ttl_s: Annotated[float, msgspec.Meta(gt=0, le=MAX_RESERVATION_TTL_S)] = 60.0


class Reservation(Decision, frozen=True, kw_only=True):
    """An allowed reservation. Unsettled after ``expires_in_s``, the estimate stands."""

    reserved: int
    reservation: str | None
    expires_in_s: float


class Settlement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/reservations/settle``: the true ``cost``; 0 gives all of it back."""

    reservation: HoldText
    cost: Cost


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """``returned`` or ``charged`` units of the difference; ``repeated`` when the same settlement was made before."""

    returned: int
    charged: int
    repeated: bool
