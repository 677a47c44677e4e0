"""The shapes of roll-outs and their policy."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, cast

from pydantic import Field

from control_plane.canary.models import RolloutRow
from control_plane.web.fields import Body, Name, Text, View

Mode = Literal["immediate", "canary"]
State = Literal["node", "region", "done", "rolled_back"]
Pause = Annotated[float, Field(ge=0, le=86_400)]
Rise = Annotated[float, Field(ge=0, le=1)]
NodeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:@-]{1,128}$")]


class RolloutPolicyBody(Body):
    """How changes of plans, limits, endpoints, backends and adaptive policies reach nodes."""

    mode: Mode = Field(examples=["canary"])
    """`canary`: one node, its region, then all; `immediate`: all at once."""
    region: Name | None = None
    """Where to begin; by default in the region with the fewest nodes."""
    node: NodeName | None = None
    """The node to begin with, if it is connected."""
    node_pause_s: Pause = 60.0
    """How long one node has a revision before its region gets it."""
    region_pause_s: Pause = 120.0
    """How long its region has it before all get it."""
    max_denial_rise: Rise = 0.1
    """Stop when the part of requests denied on these nodes rises by more than this."""
    max_degraded_rise: Rise = 0.05
    """The same for decisions made without the store."""
    min_decisions: Annotated[int, Field(ge=1, le=10**9)] = 100
    """Fewer decisions than this before or after are no evidence."""


class RolloutPolicyView(View):
    """The policy in force."""

    mode: Mode
    region: str | None
    node: str | None
    node_pause_s: float
    region_pause_s: float
    max_denial_rise: float
    max_degraded_rise: float
    min_decisions: int


class RolloutReason(Body):
    """Why somebody steps in."""

    reason: Text | None = Field(default=None, examples=["looks good"])


class RolloutOutcome(View):
    """How a roll-out stands, as the audit log keeps it."""

    state: State
    outcome: str | None


class RolloutView(View):
    """A roll-out. ``region`` and ``node`` are its stage: one node, or with no ``node`` all of a region."""

    revision: int
    """The revision that began it."""
    state: State
    region: str
    node: str | None
    base_revision: int
    """What other nodes had when it began."""
    stage_revision: int
    """What nodes of the stage must apply."""
    released_revision: int | None
    """The revision with which it ended, and that every node gets."""
    started_at: datetime
    stage_at: datetime
    acked_at: datetime | None
    """When every node of the stage had applied it."""
    ended_at: datetime | None
    outcome: str | None

    @classmethod
    def of(cls, row: RolloutRow) -> "RolloutView":
        """Show a row."""
        return cls(
            revision=row.number,
            state=cast("State", row.state),
            region=row.region,
            node=row.node or None,
            base_revision=row.base_revision,
            stage_revision=row.stage_revision,
            released_revision=row.released_revision,
            started_at=row.started_at,
            stage_at=row.stage_at,
            acked_at=row.acked_at,
            ended_at=row.ended_at,
            outcome=row.outcome,
        )


class HeldDocument(View):
    """A document of which nodes outside the stage have what was before."""

    kind: str
    id: str
    """Its name; of a key its `key_id`."""

    @classmethod
    def of(cls, held: Mapping[str, Any]) -> "HeldDocument":
        """Show what a roll-out holds back. The document of a key goes by the hash of its secret, which is hidden."""
        if held["kind"] != "key":
            return cls(kind=held["kind"], id=held["id"])
        return cls(kind="key", id=json.loads(held["before"] or "{}").get("key_id", ""))


class RolloutDetail(RolloutView):
    """A roll-out, and what it changes on nodes of the stage alone until it is over."""

    held: list[HeldDocument]
