"""What nodes get of clients and of their keys."""

from contract.config import ApiKey, Client
from control_plane.clients.figures import document_of
from control_plane.clients.models import KeyRow
from control_plane.clients.schemas import ClientRecord


def client_document(client: ClientRecord) -> Client:
    """The client with its overrides."""
    return Client(
        client=client.client,
        plan=client.plan,
        status=client.status,
        attributes=client.attributes,
        overrides={name: document_of(figures) for name, figures in client.overrides.items()},
        generation=client.generation,
    )


def key_document(row: KeyRow) -> ApiKey:
    """The key by the hash of its secret."""
    expires_at = None if row.expires_at is None else row.expires_at.timestamp()
    return ApiKey(sha256=row.sha256, key_id=row.key_id, client=row.client, expires_at=expires_at)
