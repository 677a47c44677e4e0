"""Every secret of the local stack: made once, kept in the data directory for nobody else to read."""

import os
import secrets
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tidegate.contract.credentials import RANDOM_BYTES, make_credential
from tidegate.contract.decoding import UNREADABLE
from tidegate.stack.layout import DataDir
from tidegate.stack.progress import StackError

MIN_ADMIN_TOKEN_LENGTH = 16
DEMO_CLIENTS = ("acme", "globex")


class Keyring(msgspec.Struct, kw_only=True):
    """``signing_key`` is the seed (hex) of the Ed25519 key that signs the config; the maps are by region."""

    postgres_password: str
    signing_key: str
    store_passwords: dict[str, str] = {}
    region_credentials: dict[str, str] = {}
    demo_keys: dict[str, str] = {}

    def public_key(self) -> str:
        """The public half (hex) of ``signing_key``."""
        private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(self.signing_key))
        return private.public_key().public_bytes_raw().hex()


def open_keyring(data_dir: DataDir, regions: tuple[str, ...]) -> Keyring:
    """The data directory's secrets, with those of new regions added."""
    if data_dir.secrets.exists():
        try:
            keyring = msgspec.json.decode(data_dir.secrets.read_bytes(), type=Keyring)
        except UNREADABLE:
            raise StackError(
                f"{data_dir.secrets} is damaged: without the passwords in it the data directory cannot be opened; "
                "bring the file back, or name another --data-dir"
            ) from None
    else:
        keyring = Keyring(postgres_password=secrets.token_urlsafe(24), signing_key=secrets.token_hex(32))
    for region in regions:
        keyring.store_passwords.setdefault(region, secrets.token_urlsafe(24))
        keyring.region_credentials.setdefault(region, make_credential("region", secrets.token_bytes(RANDOM_BYTES)))
    for client in DEMO_CLIENTS:
        keyring.demo_keys.setdefault(client, make_credential("client_key", secrets.token_bytes(RANDOM_BYTES)))
    write_private(data_dir.secrets, msgspec.json.encode(keyring))
    write_private(data_dir.signing_key, keyring.signing_key.encode() + b"\n")
    return keyring


def open_admin_token(data_dir: DataDir, wanted: str | None) -> tuple[str, bool]:
    """The first admin token, and whether it was made just now. ``wanted`` is the user's own."""
    if wanted is not None and len(wanted) < MIN_ADMIN_TOKEN_LENGTH:
        raise StackError(f"TIDEGATE_ADMIN_TOKEN needs at least {MIN_ADMIN_TOKEN_LENGTH} characters")
    if wanted is not None and not (wanted.isascii() and wanted.isprintable()):
        raise StackError("TIDEGATE_ADMIN_TOKEN must be printable ASCII: it goes in a header")
    if data_dir.admin_token.exists():
        kept = data_dir.admin_token.read_text().strip()
        if wanted is not None and not secrets.compare_digest(wanted, kept):
            raise StackError(
                f"TIDEGATE_ADMIN_TOKEN differs from the first token of this data directory ({data_dir.admin_token}): "
                "unset it, or make another token by the admin API"
            )
        return kept, False
    token = wanted or make_credential("admin", secrets.token_bytes(RANDOM_BYTES))
    write_private(data_dir.admin_token, token.encode() + b"\n")
    return token, wanted is None


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    draft.replace(path)
