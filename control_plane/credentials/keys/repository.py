"""Queries on keys by the hash of their secret, many at once."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.clients.models import KeyRow

_OWNERS = text("""
SELECT sha256, client FROM keys WHERE sha256 = ANY(CAST(:hashes AS text[]))
""")
_PUT = text("""
INSERT INTO keys (key_id, client, sha256, prefix, name, expires_at)
SELECT * FROM unnest(CAST(:ids AS text[]), CAST(:clients AS text[]), CAST(:hashes AS text[]),
                     CAST(:prefixes AS text[]), CAST(:names AS text[]), CAST(:ends AS timestamptz[]))
RETURNING key_id, created_at
""")


async def owners(session: AsyncSession, hashes: Sequence[str]) -> dict[str, str]:
    """The client of each of these hashes that is a key already."""
    return {row.sha256: row.client for row in await session.execute(_OWNERS, {"hashes": list(hashes)})}


async def put(session: AsyncSession, rows: Sequence[KeyRow]) -> dict[str, datetime]:
    """Make keys; when each was made, by its id."""
    values: dict[str, list[Any]] = {
        "ids": [row.key_id for row in rows],
        "clients": [row.client for row in rows],
        "hashes": [row.sha256 for row in rows],
        "prefixes": [row.prefix for row in rows],
        "names": [row.name for row in rows],
        "ends": [row.expires_at for row in rows],
    }
    return {row.key_id: row.created_at for row in await session.execute(_PUT, values)}
