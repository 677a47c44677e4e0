"""Service of blocks."""

from typing import cast

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.blocks import repository
from control_plane.blocks.models import BlockRow
from control_plane.blocks.schemas import BlockFields, BlockView
from control_plane.clients.models import ClientRow, KeyRow
from control_plane.errors import ConflictError, FieldError, InvalidError
from control_plane.publishing.repository import DocumentKey
from control_plane.publishing.writer import ConfigWrite
from control_plane.resources import Resource
from control_plane.routes.models import EndpointRow
from tidegate.contract.blocks import Block, ReasonClass, network_of

MAX_BLOCKS = 100_000


class Blocks(Resource[BlockRow, BlockFields, BlockView]):
    """Blocks by name."""

    noun = "block"
    rows = repository.blocks

    def view(self, row: BlockRow) -> BlockView:
        """Show a block."""
        return BlockView(
            block=row.block,
            client=row.client,
            key_id=row.key_id,
            ip=row.network,
            endpoint=row.endpoint,
            reason=row.reason,
            reason_class=cast("ReasonClass", row.reason_class),
            expires_at=row.expires_at,
            created_at=row.created_at,
        )

    async def save(self, write: ConfigWrite, name: str, body: BlockFields, current: BlockRow | None) -> BlockRow:
        """Create or change a block. What it names must exist, as a block of a misspelled name has no effect."""
        network = network_at(body.ip)
        wrong = await _missing(write.session, body)
        if wrong:
            raise InvalidError(wrong)
        if current is None and await self.rows.count(write.session) >= MAX_BLOCKS:
            raise ConflictError(f"There are {MAX_BLOCKS} blocks already: block a network instead of addresses.")
        row = current or BlockRow(block=name)
        row.client, row.key_id, row.network, row.endpoint = body.client, body.key_id, network, body.endpoint
        row.reason, row.reason_class, row.expires_at = body.reason, body.reason_class, body.expires_at
        write.session.add(row)
        await write.session.flush()
        write.publish(to_document(row))
        return row

    async def remove(self, write: ConfigWrite, row: BlockRow) -> None:
        """Lift a block."""
        await write.session.delete(row)
        write.withdraw(DocumentKey("block", row.block))


def to_document(row: BlockRow) -> Block:
    """The document of a block."""
    return Block(
        block=row.block,
        client=row.client,
        key_id=row.key_id,
        network=row.network,
        endpoint=row.endpoint,
        reason_class=cast("ReasonClass", row.reason_class),
        expires_at=None if row.expires_at is None else row.expires_at.timestamp(),
    )


def network_at(ip: str | None) -> str | None:
    """The network in canonical form. Raises :class:`InvalidError`, which names the field ``ip``."""
    if ip is None:
        return None
    if "%" in ip:
        raise InvalidError([FieldError("ip", "names a zone (%), which only means something on one machine")])
    try:
        return str(network_of(ip))
    except ValueError as error:
        raise InvalidError([FieldError("ip", f"is no address and no CIDR block: {error}")]) from None


async def _missing(session: AsyncSession, body: BlockFields) -> list[FieldError]:
    if body.client is not None and await session.get(ClientRow, body.client) is None:
        return [FieldError("client", f"there is no client named {body.client}")]
    if body.key_id is not None and await session.get(KeyRow, body.key_id) is None:
        return [FieldError("key_id", f"there is no key {body.key_id}")]
    if body.endpoint is not None and await session.get(EndpointRow, body.endpoint) is None:
        return [FieldError("endpoint", f"there is no endpoint named {body.endpoint}")]
    return []
