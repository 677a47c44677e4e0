# noqa: INP001 - a script of the compose project, not a module of ours
"""Make what must be secret in the compose project, once: the first service runs this in a volume of its own.

Files are readable by every container that mounts the volume, and by nobody else.
"""

import secrets
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from contract.credentials import RANDOM_BYTES, make_credential


def contents() -> dict[str, str]:
    """Every file's text. ``env`` is read by shells, so its values hold no character that a shell knows."""
    postgres, valkey, signing = secrets.token_urlsafe(24), secrets.token_urlsafe(24), secrets.token_bytes(RANDOM_BYTES)
    public = Ed25519PrivateKey.from_private_bytes(signing).public_key().public_bytes_raw().hex()
    env = {
        "TIDEGATE_DATABASE_URL": f"postgresql+asyncpg://tidegate:{postgres}@postgres:5432/tidegate",
        "TIDEGATE_REDIS_URL": f"redis://:{valkey}@valkey:6379/0",
        "TIDEGATE_CONTROL_PLANE_PUBLIC_KEY": public,
        "TIDEGATE_REGION_CREDENTIAL": make_credential("region", secrets.token_bytes(RANDOM_BYTES)),
    }
    return {
        "env": "".join(f"export {name}={value}\n" for name, value in env.items()),
        "postgres-password": postgres,
        "signing-key": signing.hex() + "\n",
        "admin-token": make_credential("admin", secrets.token_bytes(RANDOM_BYTES)) + "\n",
        "valkey.conf": f"requirepass {valkey}\nmaxmemory 256mb\nmaxmemory-policy noeviction\nappendonly yes\n",
    }


def main(directory: Path) -> None:
    """Write the files unless the last of them is there."""
    last = directory / "complete"
    if last.exists():
        return
    for name, text in contents().items():
        (directory / name).write_text(text)
    last.touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
