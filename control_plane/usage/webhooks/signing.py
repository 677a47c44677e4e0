"""The signatures of webhooks. Their keys are not stored: each follows from the control plane's own key and a salt."""

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SECRET_PREFIX = "tgw_"  # noqa: S105  what secrets begin with


class WebhookKeys:
    """Derives the secret of a webhook from the control plane's signing key (HKDF, RFC 5869)."""

    def __init__(self, signing_key: Ed25519PrivateKey) -> None:
        derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"tidegate usage webhooks")
        self._root = derived.derive(signing_key.private_bytes_raw())

    def secret(self, webhook: str, salt: str) -> str:
        """The secret of a webhook under its present salt."""
        message = f"{webhook}\0{salt}".encode()
        return SECRET_PREFIX + hmac.new(self._root, message, hashlib.sha256).hexdigest()


def signature(secret: str, sent_at_s: int, body: bytes) -> str:
    """The value of ``X-Tidegate-Signature``: ``t=<epoch seconds>,v1=<HMAC-SHA256 of "t.body", hex>``."""
    signed = str(sent_at_s).encode() + b"." + body
    return f"t={sent_at_s},v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"
