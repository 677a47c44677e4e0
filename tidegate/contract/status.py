"""A node introduces itself to the control plane, asks for the newest revision, and reports what it decided."""

from typing import Annotated, Literal

import msgspec

from tidegate.contract.decoding import NodeName

Role = Literal["node", "agent"]
"""A decision node, or an agent of its region."""
Decisions = Annotated[int, msgspec.Meta(ge=0, le=10**12)]


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """A node introduces itself and what it already has (revision 0 and an empty digest: nothing)."""

    node: str
    region: str
    revision: int = 0
    digest: str = ""
    version: str = ""
    role: Role = "node"


class Newest(msgspec.Struct, frozen=True, kw_only=True):
    """The revision that a node or an agent should have at this moment, read from the database for it."""

    revision: int
    digest: str


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a node decided since its report before, every few seconds while it is connected.

    ``denied`` and ``degraded`` (made without the store) are among the ``decisions``. A report that is lost is not sent
    again: these are rates for roll-outs, not accounts.
    """

    node: NodeName
    decisions: Decisions
    denied: Decisions = 0
    degraded: Decisions = 0
