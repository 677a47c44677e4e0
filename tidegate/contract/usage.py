"""What nodes send the control plane of usage: batches of counts, each with a name by which a second copy is known.

A batch is one node's counts of one hour since its last batch: deflated MessagePack, as it rests in the region's stream.
A shipment is what one node of a region sends of that stream over HTTP. Receivers ignore members they do not know.
"""

import zlib
from typing import Annotated

import msgspec

from tidegate.contract.decoding import UNREADABLE, InflateError, NodeName, inflated

PROTOCOL_VERSION = 1
MAX_CELLS = 2_000
"""The most cells that a batch holds."""
MAX_PACKED_BYTES = 256 * 1024
MAX_INFLATED_BYTES = 4 * 1024 * 1024
MAX_BATCHES = 500
"""The most batches of a shipment."""
MAX_SHIPMENT_BYTES = 900_000
OUTSIDE_PLANS = "_"
"""Stands for the plan of a limit that is outside plans."""

MOST_UNITS = 2**46
"""More units than any caller can use between two batches: a node puts this where somebody asked for more, so that no
figure makes a batch unreadable, or a sum too large to be stored."""
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Balance = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
"""A count from which what came back of leases and reservations is taken: below 0 where more came than was taken."""
Label = Annotated[str, msgspec.Meta(max_length=128, pattern=r"^[^\x00]*$")]
Position = Annotated[int, msgspec.Meta(ge=0, le=65_535)]


class LimitName(msgspec.Struct, frozen=True, array_like=True):
    """A limit by its plan (``_`` outside plans) and its name."""

    plan: Label
    limit: Label


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where requests were decided: the caller's plan, the route, and the limits that applied there."""

    plan: Label
    endpoint: Label
    limits: Annotated[tuple[LimitName, ...], msgspec.Meta(max_length=1_000)]


class Denials(msgspec.Struct, frozen=True, array_like=True):
    """Requests that the same limits objected to; positions are those of the place's limits.

    Only ``shadow``: the requests were allowed. Neither: a backend under load shed them, and no limit was asked.
    """

    denied: Annotated[tuple[Position, ...], msgspec.Meta(max_length=1_000)]
    shadow: Annotated[tuple[Position, ...], msgspec.Meta(max_length=1_000)]
    requests: Count
    cost: Count

    @property
    def stopped(self) -> bool:
        """Whether these requests were denied."""
        return bool(self.denied) or not self.shadow


class UsageCell(msgspec.Struct, frozen=True, array_like=True):
    """What one caller did at one place. ``client`` is empty for anonymous ones, ``key_id`` where no key was shown."""

    place: Position
    client: Label
    key_id: Label
    allowed: Balance
    cost: Balance
    """Units that the allowed requests took."""
    denials: Annotated[tuple[Denials, ...], msgspec.Meta(max_length=1_000)] = ()


class UsageBatch(msgspec.Struct, frozen=True, kw_only=True):
    """One node's counts of one ``hour`` (hours since the epoch), named by node, incarnation and sequence (from 1).

    ``until_ms``: when they were taken, by the node's clock, in milliseconds since the epoch.
    """

    version: int = PROTOCOL_VERSION
    node: NodeName
    incarnation: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{1,64}$(?!\n)")]
    sequence: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    hour: Count
    until_ms: Count
    places: Annotated[tuple[Place, ...], msgspec.Meta(max_length=MAX_CELLS)]
    cells: Annotated[tuple[UsageCell, ...], msgspec.Meta(max_length=MAX_CELLS)]


class Shipment(msgspec.Struct, frozen=True, kw_only=True):
    """Packed batches of one region's stream, oldest first.

    ``complete_until_ms``: with these, all that the region's nodes counted before that instant was sent.
    """

    version: int = PROTOCOL_VERSION
    region: str
    node: str
    batches: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=MAX_BATCHES)]
    complete_until_ms: Count | None = None


class RefusedBatch(msgspec.Struct, frozen=True):
    """A batch of a shipment that can never be taken, by its position, and why."""

    position: int
    reason: str


class ShipmentAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of the shipment is settled: taken now, known from before, or refused for good."""

    taken: int
    known: int
    refused: tuple[RefusedBatch, ...] = ()


class UnreadableBatchError(ValueError):
    """A packed batch that is none, or is too large."""


_batch_decoder = msgspec.msgpack.Decoder(UsageBatch)


def pack(batch: UsageBatch) -> bytes:
    """The batch as it rests in the stream."""
    return zlib.compress(msgspec.msgpack.encode(batch), level=1)


def unpack(packed: bytes) -> UsageBatch:
    """The batch in ``packed``. Raises ``UnreadableBatchError``; never inflates more than 4 MiB."""
    if len(packed) > MAX_PACKED_BYTES:
        raise UnreadableBatchError(f"is larger than {MAX_PACKED_BYTES} bytes")
    try:
        batch = _batch_decoder.decode(inflated(packed, MAX_INFLATED_BYTES))
    except (InflateError, *UNREADABLE) as error:
        raise UnreadableBatchError(str(error)) from None
    if batch.version != PROTOCOL_VERSION:
        raise UnreadableBatchError(f"is of version {batch.version}; this is version {PROTOCOL_VERSION}")
    for cell in batch.cells:
        if cell.place >= len(batch.places):
            raise UnreadableBatchError(f"names the place {cell.place} of {len(batch.places)}")
        limits = len(batch.places[cell.place].limits)
        if any(at >= limits for denials in cell.denials for at in (*denials.denied, *denials.shadow)):
            raise UnreadableBatchError("names a limit that its place does not have")
    return batch
