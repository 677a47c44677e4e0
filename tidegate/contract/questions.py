"""What the control plane asks a region. How much of its limits has a client used there at this moment? Whom did the
region deny? How does it stand to other regions? Or: ship the usage that waits in the region's stream at once.

One agent of a region holds a request open (``GET /internal/v1/questions``), which is answered when somebody asks. It
sends what it found by a request of its own (``POST /internal/v1/answers``). Nothing dials in.
"""

from typing import Annotated, Literal

import msgspec

from tidegate.contract.decoding import NodeName
from tidegate.contract.denials import MAX_FOUND, Denial, DenialQuery

MAX_FIGURES = 250
MAX_QUESTIONS = 100
MAX_PEERS = 50
Units = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Question(msgspec.Struct, frozen=True):
    """``limits``: what has ``client`` used? ``usage``: ship what the stream holds, and answer once it is taken.

    ``denials``: which denials does the region remember? ``exchange``: how does it stand to other regions? Then
    ``client`` is empty. Whoever does not know ``about``, ``denials`` or ``exchange`` sees a client without a name, and
    says that it does not know it.
    """

    id: str
    client: str
    about: Literal["limits", "usage"] = "limits"
    denials: DenialQuery | None = None
    exchange: bool = False


class Questions(msgspec.Struct, frozen=True):
    """What is to be answered; empty when nobody asked for a while."""

    questions: tuple[Question, ...] = ()


class LimitFigure(msgspec.Struct, frozen=True, array_like=True):
    """One limit (by rule id) as its region sees it: units used and left of ``limit``, and seconds until it resets."""

    rule_id: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    limit: Units
    used: Units
    remaining: Units
    reset_s: Annotated[float, msgspec.Meta(ge=0, le=1e10)]


class PeerExchange(msgspec.Struct, frozen=True, array_like=True):
    """Another region as this one has it. ``staleness_s``: how old its counts are here, at most; null: none came yet.

    Units of strict limits moved since this agent began.
    """

    region: Annotated[str, msgspec.Meta(max_length=64)]
    staleness_s: Annotated[float, msgspec.Meta(ge=0, le=1e10)] | None
    unreachable: bool
    units_given: Units = 0
    units_received: Units = 0


class RegionExchange(msgspec.Struct, frozen=True):
    """How a region stands to others, by one of its agents since that began. ``shares_proven``: it serves strict limits.

    ``overshoots``: merges that found a counter over its limit, by ``most_over_units`` at the most.
    """

    peers: Annotated[tuple[PeerExchange, ...], msgspec.Meta(max_length=MAX_PEERS)] = ()
    shares_proven: bool = False
    overshoots: Units = 0
    most_over_units: Units = 0


class NodeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a node found. ``error``: why there are no figures."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}$(?!\n)")]
    node: NodeName
    revision: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    figures: Annotated[tuple[LimitFigure, ...], msgspec.Meta(max_length=MAX_FIGURES)] = ()
    error: Annotated[str, msgspec.Meta(max_length=200, pattern=r"^[ -~]*$(?!\n)")] | None = None
    denials: Annotated[tuple[Denial, ...], msgspec.Meta(max_length=MAX_FOUND)] = ()
    exchange: RegionExchange | None = None
