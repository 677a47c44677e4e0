"""An open write: what services change in tables, say of documents and leave in the audit log."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from contract.config import Document
from control_plane.audit import trail
from control_plane.audit.trail import Origin
from control_plane.publishing import repository
from control_plane.publishing.documents import ChangedDocument, DocumentKey, canonical, key_of
from control_plane.publishing.models import ConfigHead
from control_plane.publishing.placement import Placement

Shown = TypeVar("Shown")


class ConfigWrite:
    """Services change tables through ``session`` and say which documents follow from that.

    ``revision`` is the head's while the block runs, and afterwards the one that this write made (or left).
    """

    def __init__(
        self,
        session: AsyncSession,
        head: ConfigHead,
        placement: Placement,
        *,
        author: str,
        reason: str | None,
        origin: Origin,
    ) -> None:
        self.session = session
        self.head = head
        self.placement = placement
        """Where this write's revision goes first."""
        self.revision = head.revision
        self.next_revision = head.revision + 1
        """The number that this write's revision has, if it makes one."""
        self.author = author
        self.reason = reason
        self.origin = origin
        self.events: list[trail.Event] = []
        self.reads: list[tuple[Callable[[AsyncSession], Awaitable[Any]], asyncio.Future[Any]]] = []
        self._wanted: dict[DocumentKey, str | None] = {}
        self._before: dict[DocumentKey, str | None] = {}

    def publish(self, document: Document, key: DocumentKey | None = None) -> None:
        """From this revision on, nodes have ``document``, under its own name unless ``key`` says another."""
        self._wanted[key or key_of(document)] = canonical(document)

    def withdraw(self, key: DocumentKey) -> None:
        """From this revision on, nodes no longer have the document."""
        self._wanted[key] = None

    async def documents(self) -> list[ChangedDocument]:
        """Every document that this write speaks of, as nodes have it and as it shall be; some may not differ."""
        await self.session.flush()
        unread = [key for key in self._wanted if key not in self._before]
        stored = await repository.bodies(self.session, unread)
        self._before |= {key: stored.get(key) for key in unread}
        return [ChangedDocument(key, self._before[key], after) for key, after in self._wanted.items()]

    def record(
        self,
        resource: str,
        name: str,
        before: BaseModel | None,
        after: BaseModel | None,
        action: trail.Action | None = None,
    ) -> None:
        """Put into the audit log what became of a resource, by its views; nothing if they do not differ.

        A write that records nothing is recorded by its documents: none goes unseen.
        """
        if before == after and action is None:
            return
        self.events.append(trail.event(action or trail.action_of(before, after), resource, name, before, after))

    def once_published(self, read: Callable[[AsyncSession], Awaitable[Shown]]) -> Awaitable[Shown]:
        """What ``read`` finds in this write's transaction once its revision is made; to be awaited after the block."""
        found: asyncio.Future[Shown] = asyncio.get_running_loop().create_future()
        self.reads.append((read, found))
        return found
