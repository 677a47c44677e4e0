"""Reads of routes: a session that sees one instant, and a JSON answer with its ETag."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.database import Database
from control_plane.web.etags import etag_of


async def _reading(request: Request) -> AsyncIterator[AsyncSession]:
    database: Database = request.state.database
    async with database.read() as session:
        yield session


Reading = Annotated[AsyncSession, Depends(_reading, scope="function")]


def json_with_etag(view: BaseModel) -> Response:
    """The JSON answer to a read of one resource, with its ETag."""
    return Response(view.model_dump_json(), 200, {"ETag": etag_of(view)}, media_type="application/json")
