"""``/v1/revisions`` and ``/v1/nodes``: what changed, and who has it."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from sqlalchemy import not_

from control_plane.access.principals import by_method
from control_plane.canary import repository as rollouts
from control_plane.canary.models import RolloutRow
from control_plane.canary.schemas import RolloutView
from control_plane.database import Reading
from control_plane.errors import NotFoundError
from control_plane.nodes import repository as nodes
from control_plane.nodes.models import Node
from control_plane.orm import equal
from control_plane.publishing import repository
from control_plane.publishing.models import Revision
from control_plane.push.schemas import (
    DocumentChange,
    NodeName,
    NodeRefusal,
    NodeView,
    RevisionDetail,
    RevisionDiff,
    RevisionView,
)
from control_plane.push.stream import views
from control_plane.web.etags import json_with_etag
from control_plane.web.fields import Instant, Name
from control_plane.web.pages import Listing, Page, PageQuery, foreign_cursor, listing, number_after

router = APIRouter(prefix="/v1", tags=["roll-out"], dependencies=[Depends(by_method)])

MAX_NODES_SHOWN = 10_000
Number = Annotated[int, Path(ge=1, le=2**62)]


@router.get("/revisions")
async def list_revisions(
    session: Reading,
    page: PageQuery,
    author: Annotated[str | None, Query(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f\x7f]+$")] = None,
    since: Annotated[Instant | None, Query(description="not before this instant")] = None,
    until: Annotated[Instant | None, Query(description="before this instant")] = None,
) -> Listing[RevisionView]:
    """The history, newest first: all of it, or what one author did, or of a time."""
    where = equal((Revision.author, author))
    if since is not None:
        where.append(Revision.created_at >= since)
    if until is not None:
        where.append(Revision.created_at < until)
    rows = await repository.revisions_before(session, number_after(page), page.limit + 1, where)
    return listing(rows, page, lambda row: str(row.number), RevisionView.of)


@router.get("/revisions/{number}", response_model=RevisionDetail)
async def get_revision(session: Reading, request: Request, number: Number) -> Response:
    """One revision, and which nodes have it."""
    row = _existing(await repository.revision(session, number), number)
    acked, pending, refused = [], [], []
    rollout = await rollouts.rollout(session, number)
    for node, connected in await nodes.page(session, request.state.settings.heartbeat_s, None, MAX_NODES_SHOWN):
        name = NodeName.model_validate(node)
        if node.applied_revision >= number and _reaches(rollout, node):
            acked.append(name)
        elif node.refused_revision == number:
            refused.append(NodeRefusal(node=node.node, region=node.region, reason=node.refused_reason))
        elif connected:
            pending.append(name)
    view = RevisionView.of(row)
    way = None if rollout is None else RolloutView.of(rollout)
    return json_with_etag(
        RevisionDetail(**view.model_dump(), acked=acked, pending=pending, refused=refused, rollout=way)
    )


@router.get("/revisions/{number}/diff", response_model=RevisionDiff)
async def get_revision_diff(
    session: Reading,
    number: Number,
    page: PageQuery,
    to: Annotated[int | None, Query(ge=1, le=2**62, description="compare with this revision instead")] = None,
) -> Response:
    """What one revision changed, by kind and id; with `to` what differs from this one to that."""
    _existing(await repository.revision(session, number), number)
    one, other = (number - 1, number) if to is None else (number, to)
    if to is not None:
        _existing(await repository.revision(session, to), to)
    records = await repository.changes_between(session, one, other, _document_after(page), page.limit + 1)
    part = listing(
        records,
        page,
        lambda record: f"{record['kind']}\n{record['id']}",
        lambda record: DocumentChange(**repository.shown(record)),
    )
    return json_with_etag(RevisionDiff(revision=number, to=to, changes=part.items, next_cursor=part.next_cursor))


@router.get("/nodes")
async def list_nodes(
    session: Reading, request: Request, page: PageQuery, region: Name | None = None, connected: bool | None = None
) -> Listing[NodeView]:
    """Every node that ever opened a stream, by region and name; those of a region, or with an open stream or none."""
    found = await views(session)
    after = None
    if page.after is not None:
        after_region, _, node = page.after.partition("\n")
        after = (after_region, node)
    heartbeat_s = request.state.settings.heartbeat_s
    where = equal((Node.region, region))
    if connected is not None:
        where.append(nodes.is_connected(heartbeat_s) if connected else not_(nodes.is_connected(heartbeat_s)))
    rows = await nodes.page(session, heartbeat_s, after, page.limit + 1, where)
    return listing(
        rows,
        page,
        lambda row: f"{row[0].region}\n{row[0].node}",
        lambda row: NodeView.of(row[0], connected=row[1], views=found),
    )


def _reaches(rollout: RolloutRow | None, node: Node) -> bool:
    """Whether a node that applied a newer revision has what this one changed: not while that is held back from it."""
    if rollout is None:
        return True
    if rollout.released_revision is not None:
        return node.applied_revision >= rollout.released_revision
    return node.region == rollout.region and rollout.node in ("", node.node)


def _document_after(page: Page) -> tuple[str, str]:
    kind, parted, id = (page.after or "\n").partition("\n")
    if not parted:
        raise foreign_cursor()
    return kind, id


def _existing(row: Revision | None, number: int) -> Revision:
    if row is None:
        raise NotFoundError(f"There is no revision {number}.")
    return row
