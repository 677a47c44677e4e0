"""Service of webhooks, and their signatures. A key is not stored: it follows from the control plane's and a salt."""

import base64
import hmac
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from standardwebhooks import Webhook

from control_plane.clients.models import ClientRow
from control_plane.errors import ConflictError, FieldError, InvalidError
from control_plane.limits.models import PlanRow
from control_plane.publishing.writer import ConfigWrite
from control_plane.resources import Resource
from control_plane.usage.models import UsageAlert, UsageWebhookRow
from control_plane.usage.webhooks import repository
from control_plane.usage.webhooks.schemas import DeliveryView, WebhookFields, WebhookView

MAX_WEBHOOKS = 1_000
SECRET_PREFIX = "whsec_"  # noqa: S105  what secrets begin with


class Webhooks(Resource[UsageWebhookRow, WebhookFields, WebhookView]):
    """Webhooks by name. ``salt`` is what a new one's key is derived from."""

    noun = "usage webhook"
    rows = repository.webhooks

    def __init__(self, salt: str = "") -> None:
        self._salt = salt

    def view(self, row: UsageWebhookRow) -> WebhookView:
        """Show a webhook."""
        return WebhookView.model_validate(row)

    async def save(
        self, write: ConfigWrite, name: str, body: WebhookFields, current: UsageWebhookRow | None
    ) -> UsageWebhookRow:
        """Make or change a webhook. Its plan and client must exist, but for those that it has: they may be gone."""
        plan, client = (None, None) if current is None else (current.plan, current.client)
        if body.plan not in {None, plan} and await write.session.get(PlanRow, body.plan) is None:
            raise InvalidError([FieldError("plan", f"there is no plan named {body.plan}")])
        if body.client not in {None, client} and await write.session.get(ClientRow, body.client) is None:
            raise InvalidError([FieldError("client", f"there is no client named {body.client}")])
        if current is None and await self.rows.count(write.session) >= MAX_WEBHOOKS:
            raise ConflictError(f"There are {MAX_WEBHOOKS} usage webhooks already.")
        row = current or UsageWebhookRow(webhook=name, salt=self._salt)
        row.url, row.plan, row.client = body.url, body.plan, body.client
        row.thresholds, row.enabled = list(body.thresholds), body.enabled
        write.session.add(row)
        await write.session.flush()
        return row

    async def remove(self, write: ConfigWrite, row: UsageWebhookRow) -> None:
        """Delete a webhook with its messages."""
        await write.session.delete(row)
        await write.session.flush()  # first, so that nobody adds messages behind the next line
        await repository.delete_messages(write.session, row.webhook)


def delivery_view(row: UsageAlert) -> DeliveryView:
    """Show a message."""
    return DeliveryView(
        alert=row.alert,
        client=row.client,
        plan=row.plan,
        limit=row.limit_name,
        window_start=row.window_start,
        threshold=row.percent / 100,
        used=row.used,
        of=row.limit,
        created_at=row.created_at,
        attempts=row.attempts,
        next_attempt_at=row.due_at,
        delivered_at=row.delivered_at,
        error=row.error,
    )


class WebhookKeys:
    """Derives the secret of a webhook from the control plane's signing key (HKDF, RFC 5869)."""

    def __init__(self, signing_key: Ed25519PrivateKey) -> None:
        derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"tidegate usage webhooks")
        self._root = derived.derive(signing_key.private_bytes_raw())

    def secret(self, webhook: str, salt: str) -> str:
        """The secret of a webhook under its present salt."""
        message = f"{webhook}\0{salt}".encode()
        return SECRET_PREFIX + base64.b64encode(hmac.digest(self._root, message, "sha256")).decode()


def signed_headers(secret: str, event: str, sent_at: datetime, body: bytes) -> dict[str, str]:
    """What names, dates and signs a message, as https://www.standardwebhooks.com has it; ``sent_at`` is in UTC."""
    return {
        "webhook-id": event,
        "webhook-timestamp": str(int(sent_at.timestamp())),
        "webhook-signature": Webhook(secret).sign(event, sent_at, body.decode()),
    }
