"""The shape of every secret: a prefix that says what it is, 256 random bits, a checksum that catches typing errors.

Only SHA-256 hashes of secrets are stored or sent: they are long and random, so no slow hash is needed.
A region's credential is also the seed of its Ed25519 key: nodes prove their region to peers without showing it.
"""

import base64
import hashlib
import zlib
from collections.abc import Iterable
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

CredentialKind = Literal["client_key", "admin", "gateway", "region", "reporter"]
PREFIXES: dict[CredentialKind, str] = {
    "client_key": "tg_",
    "admin": "tga_",
    "gateway": "tgg_",
    "region": "tgr_",
    "reporter": "tgl_",
}
RANDOM_BYTES = 32
_CHECKSUM_LENGTH = 6
_RANDOM_LENGTH = len(base64.urlsafe_b64encode(bytes(RANDOM_BYTES)).rstrip(b"="))


def make_credential(kind: CredentialKind, random: bytes) -> str:
    """A credential of ``kind`` from 32 random bytes."""
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"a credential needs {RANDOM_BYTES} random bytes, not {len(random)}")
    body = PREFIXES[kind] + base64.urlsafe_b64encode(random).decode().rstrip("=")
    return body + _checksum(body)


def credential_kind(secret: str) -> CredentialKind | None:
    """What kind of credential this is, or ``None`` when prefix or checksum do not hold."""
    for kind, prefix in PREFIXES.items():
        if secret.startswith(prefix) and _checksum(secret[:-_CHECKSUM_LENGTH]) == secret[-_CHECKSUM_LENGTH:]:
            return kind
    return None


def is_mistyped(secret: str) -> bool:
    """Whether this looks like one of ours, by prefix and length, and its checksum says that it never was one."""
    ours = any(
        secret.startswith(prefix) and len(secret) == len(prefix) + _RANDOM_LENGTH + _CHECKSUM_LENGTH
        for prefix in PREFIXES.values()
    )
    return ours and credential_kind(secret) is None


def secret_sha256(secret: str) -> str:
    """How a secret is stored and sent: the hex SHA-256 of its UTF-8 bytes."""
    return hashlib.sha256(secret.encode()).hexdigest()


def region_private_key(credential: str) -> Ed25519PrivateKey:
    """The key with which a region signs its messages to peers."""
    seed = hashlib.sha256(b"tidegate region key\0" + credential.encode()).digest()
    return Ed25519PrivateKey.from_private_bytes(seed)


def epoch_secret(credential: str) -> bytes:
    """With which a region proves that an epoch of its store was one (``data_plane.replicate.count_store``)."""
    return hashlib.sha256(b"tidegate store epochs\0" + credential.encode()).digest()


def region_public_key(credential: str) -> str:
    """The public half (hex), which the config carries to every node."""
    return region_private_key(credential).public_key().public_bytes_raw().hex()


def is_signed_by(public_keys: Iterable[str], signature: bytes, message: bytes) -> bool:
    """Whether one of these keys (hex) made the signature; a key that is none made nothing."""
    for key in public_keys:
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(signature, message)
        except (InvalidSignature, ValueError):
            continue
        return True
    return False


def _checksum(body: str) -> str:
    crc = zlib.crc32(body.encode())
    return base64.urlsafe_b64encode(crc.to_bytes(4, "big")).decode().rstrip("=")
