"""What nodes get of clients."""

from control_plane.clients.figures import document_of
from control_plane.clients.schemas import ClientRecord
from tidegate.contract.config import Client


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
