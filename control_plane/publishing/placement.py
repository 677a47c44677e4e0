"""Which nodes get a write's revision first; roll-outs implement it."""

from collections.abc import Sequence
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.publishing.documents import ChangedDocument, DocumentKey
from control_plane.publishing.models import ConfigHead
from control_plane.publishing.repository import Head


class Placement(Protocol):
    """Where one write's revision goes."""

    began: int | None
    """The roll-out that this write began."""

    @property
    def has_step(self) -> bool:
        """Whether this write moves or ends a roll-out, and so needs a revision even if no document differs."""
        ...

    @property
    def handed_on(self) -> Sequence[DocumentKey]:
        """Documents held back until now that more nodes get with this write's revision."""
        ...

    def move(self, region: str, node: str) -> None:
        """Make this node the stage from this revision on, or the whole region with an empty ``node``."""
        ...

    def finish(self, state: str, outcome: str) -> None:
        """Give every node the head from this revision on."""
        ...

    async def look(self) -> None:
        """Find the roll-out that is under way."""
        ...

    async def prepare(self, changes: Sequence[ChangedDocument], revision: int) -> None:
        """Before documents are stored: raise :class:`ConflictError` for changes impossible during a roll-out."""
        ...

    async def step(self, changes: Sequence[ChangedDocument], head: Head) -> str | None:
        """After documents are stored: move the stable view. Returns its digest if it has this revision too."""
        ...


class Place(Protocol):
    """Makes the placement of a write."""

    def __call__(self, session: AsyncSession, head: ConfigHead, *, immediate: bool) -> Placement:
        """``immediate``: to every node at once, without a roll-out."""
        ...
