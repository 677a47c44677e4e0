"""The tables of the configuration as it travels, and of the nodes that hold it."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, LargeBinary, SmallInteger, func
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.orm import Base


class ConfigHead(Base):
    """The one row that every writer locks: the newest revision and the digest of all documents.

    While the roll-out that began with revision ``rollout`` is under way, nodes outside its stage have the stable
    revision; the stage is one node, or all nodes of a region where ``stage_node`` is null. Deltas can be made from
    revisions since ``deltas_from``: tombstones of older ones are gone.
    """

    __tablename__ = "config_head"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    revision: Mapped[int]
    digest: Mapped[str]
    rollout: Mapped[int | None]
    stable_revision: Mapped[int | None]
    stable_digest: Mapped[str | None]
    stage_region: Mapped[str | None]
    stage_node: Mapped[str | None]
    deltas_from: Mapped[int] = mapped_column(default=0)


class RolloutPolicy(Base):
    """How changes of plans, limits and routes reach nodes; without a row: at once."""

    __tablename__ = "rollout_policy"
    __table_args__ = (
        CheckConstraint("id = 1", name="one_row"),
        CheckConstraint("mode IN ('immediate', 'canary')", name="mode"),
    )

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    mode: Mapped[str]
    node: Mapped[str | None]
    region: Mapped[str | None]
    node_pause_s: Mapped[float]
    region_pause_s: Mapped[float]
    max_denial_rise: Mapped[float]
    max_degraded_rise: Mapped[float]
    min_decisions: Mapped[int]


class RolloutRow(Base):
    """A revision on its way. ``number`` is where it began; ``stage_revision`` what nodes of the stage must apply.

    ``held`` are objects of ``kind``, ``id``, ``before``: the documents that nodes outside the stage do not get yet.
    """

    __tablename__ = "rollouts"
    __table_args__ = (CheckConstraint("state IN ('node', 'region', 'done', 'rolled_back')", name="state"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    state: Mapped[str]
    region: Mapped[str]
    node: Mapped[str]
    base_revision: Mapped[int]
    stage_revision: Mapped[int]
    released_revision: Mapped[int | None]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    stage_at: Mapped[datetime] = mapped_column(server_default=func.now())
    acked_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    node_pause_s: Mapped[float]
    region_pause_s: Mapped[float]
    max_denial_rise: Mapped[float]
    max_degraded_rise: Mapped[float]
    min_decisions: Mapped[int]
    held: Mapped[list[dict[str, Any]]] = mapped_column(deferred=True)


class NodeReportRow(Base):
    """What a node decided since its report before."""

    __tablename__ = "node_reports"

    region: Mapped[str] = mapped_column(primary_key=True)
    node: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True, index=True)
    decisions: Mapped[int]
    denied: Mapped[int]
    degraded: Mapped[int]


class Revision(Base):
    """One change of the configuration. ``changes``: objects of ``kind``, ``id``, ``before``, ``after`` (or null).

    ``stable_digest``: of what nodes outside the stage of a roll-out have under this number, if one was under way.
    """

    __tablename__ = "revisions"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    author: Mapped[str]
    reason: Mapped[str | None]
    digest: Mapped[str]
    stable_digest: Mapped[str | None]
    signature: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    changes: Mapped[list[dict[str, Any]]] = mapped_column(deferred=True)


class ConfigDocument(Base):
    """A document as nodes get it. ``body`` is canonical JSON; null means that it is gone since ``revision``."""

    __tablename__ = "config_documents"

    kind: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    body: Mapped[str | None]
    hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    bucket: Mapped[int] = mapped_column(SmallInteger, index=True)
    revision: Mapped[int] = mapped_column(index=True)


class ConfigBucket(Base):
    """The digest of one bucket's documents (see ``contract/digest.py``)."""

    __tablename__ = "config_buckets"

    bucket: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    digest: Mapped[bytes] = mapped_column(LargeBinary)


class NodeEffect(Base):
    """From when on (microseconds) a cut of a quota holds in a node's region, as the node said with its ACK."""

    __tablename__ = "node_effects"

    region: Mapped[str] = mapped_column(primary_key=True)
    node: Mapped[str] = mapped_column(primary_key=True)
    rule_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, index=True)
    revision: Mapped[int]
    from_us: Mapped[int]


class Node(Base):
    """A node, or an agent of its region (``role``), that once opened a stream.

    ``stream`` names the open one; it counts while ``last_seen`` is fresh.

    ``staged_revision`` is the newest stage of a roll-out that the node was sent, at ``staged_at``: null once applied.
    """

    __tablename__ = "nodes"
    __table_args__ = (CheckConstraint("role IN ('node', 'agent')", name="role"),)

    region: Mapped[str] = mapped_column(primary_key=True)
    node: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str] = mapped_column(server_default="node")
    version: Mapped[str] = mapped_column(default="")
    applied_revision: Mapped[int] = mapped_column(default=0)
    applied_at: Mapped[datetime | None]
    refused_revision: Mapped[int | None]
    refused_reason: Mapped[str | None]
    stream: Mapped[str | None] = mapped_column(index=True)
    opened_at: Mapped[datetime | None]
    staged_revision: Mapped[int | None]
    staged_at: Mapped[datetime | None]
    last_seen: Mapped[datetime] = mapped_column(server_default=func.now())
