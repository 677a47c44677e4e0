"""The signature that lets nodes trust a revision, and a snapshot file of it."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tidegate.contract.config import signed_head


class Signer:
    """Signs the head of a revision with the control plane's Ed25519 key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    def sign(self, revision: int, digest: str) -> str:
        """The signature (hex) that binds ``digest`` to ``revision``."""
        return self._key.sign(signed_head(revision, digest)).hex()
