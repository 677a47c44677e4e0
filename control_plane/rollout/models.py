"""The tables of the configuration as it travels, and of the nodes that hold it."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, LargeBinary, SmallInteger, func
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.orm import Base


class ConfigHead(Base):
    """The one row that every writer locks: the newest revision and the digest of all documents."""

    __tablename__ = "config_head"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    revision: Mapped[int]
    digest: Mapped[str]


class Revision(Base):
    """One change of the configuration. ``changes``: objects of ``kind``, ``id``, ``before``, ``after`` (or null)."""

    __tablename__ = "revisions"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    author: Mapped[str]
    reason: Mapped[str | None]
    digest: Mapped[str]
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
    """A node that once opened a stream. ``stream`` names the open one; it counts while ``last_seen`` is fresh."""

    __tablename__ = "nodes"

    region: Mapped[str] = mapped_column(primary_key=True)
    node: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(default="")
    applied_revision: Mapped[int] = mapped_column(default=0)
    applied_at: Mapped[datetime | None]
    refused_revision: Mapped[int | None]
    refused_reason: Mapped[str | None]
    stream: Mapped[str | None] = mapped_column(index=True)
    last_seen: Mapped[datetime] = mapped_column(server_default=func.now())
