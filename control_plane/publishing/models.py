"""The tables of the published configuration: documents, bucket digests, the head, revisions."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, LargeBinary, SmallInteger, func
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.orm import Base

STAGED_KINDS = frozenset({"plan", "limit", "endpoint", "backend", "adaptive_policy"})
"""Kinds of documents that roll-outs apply to; clients and keys are sent everywhere at once."""


class ConfigHead(Base):
    """The one row that every writer locks: the newest revision and the digest of all documents.

    ``rollout`` is the revision that began the roll-out under way. Nodes outside its stage have the stable revision. The
    stage is one node, or all nodes of a region where ``stage_node`` is null. Deltas can be made from revisions since
    ``deltas_from``: tombstones of older ones are gone.
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
    """A document for nodes. ``body`` is canonical JSON; null means that it was deleted in ``revision``."""

    __tablename__ = "config_documents"

    kind: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    body: Mapped[str | None]
    hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    bucket: Mapped[int] = mapped_column(SmallInteger, index=True)
    revision: Mapped[int] = mapped_column(index=True)


class ConfigBucket(Base):
    """The digest of one bucket's documents (see ``tidegate/contract/config.py``)."""

    __tablename__ = "config_buckets"

    bucket: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    digest: Mapped[bytes] = mapped_column(LargeBinary)


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
