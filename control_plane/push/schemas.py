"""What the admin API shows of revisions and nodes."""

from datetime import datetime
from typing import Any, cast

from control_plane.canary.schemas import RolloutView
from control_plane.nodes.models import Node
from control_plane.publishing.models import Revision
from control_plane.push.stream import Views
from control_plane.web.fields import View
from tidegate.contract.status import Role


class RevisionView(View):
    """A revision: who made it, when and why."""

    revision: int
    author: str
    reason: str | None
    digest: str
    created_at: datetime

    @classmethod
    def of(cls, row: Revision) -> "RevisionView":
        """Show a row."""
        return cls(
            revision=row.number, author=row.author, reason=row.reason, digest=row.digest, created_at=row.created_at
        )


class NodeView(View):
    """A node or an agent: what it applied, and what it refused since, if anything."""

    node: str
    region: str
    role: Role
    version: str
    connected: bool
    last_seen: datetime
    applied_revision: int
    applied_at: datetime | None
    behind: int
    """How many revisions it lacks."""
    held_back: int | None
    """The revision whose changes a roll-out holds back from this node, whatever newer one it has applied."""
    refused_revision: int | None
    refused_reason: str | None

    @classmethod
    def of(cls, row: Node, *, connected: bool, views: Views) -> "NodeView":
        """Show a row beside what nodes should have."""
        return cls(
            node=row.node,
            region=row.region,
            role=cast("Role", row.role),
            version=row.version,
            connected=connected,
            last_seen=row.last_seen,
            applied_revision=row.applied_revision,
            applied_at=row.applied_at,
            behind=max(0, views.head.revision - row.applied_revision),
            held_back=None if views.in_stage(row.region, row.node) else views.rollout,
            refused_revision=row.refused_revision,
            refused_reason=row.refused_reason,
        )


class NodeRefusal(View):
    """A node that refused a revision, and why."""

    node: str
    region: str
    reason: str | None


class NodeName(View):
    """A node of a region."""

    node: str
    region: str


class RevisionDetail(RevisionView):
    """A revision and where it has got to: who applied it or a newer one, who has not yet, who refused it."""

    acked: list[NodeName]
    pending: list[NodeName]
    """Connected nodes that have not applied it."""
    refused: list[NodeRefusal]
    rollout: RolloutView | None
    """The roll-out that it began, if it did not go to all nodes at once."""


class DocumentChange(View):
    """One document before and after; ``null`` where it did not exist. Hashes of secrets are left out."""

    kind: str
    id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class RevisionDiff(View):
    """What a revision changed, or (``to``) what differs from it to another one."""

    revision: int
    to: int | None
    changes: list[DocumentChange]
    next_cursor: str | None
    """Of the next page of changes, if there is one."""
