"""The signatures of webhooks. Their keys are not stored: each follows from the control plane's own key and a salt."""

import base64
import hmac
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from standardwebhooks import Webhook

SECRET_PREFIX = "whsec_"  # noqa: S105  what secrets begin with


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
