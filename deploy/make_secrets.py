# noqa: INP001 - a script of the compose project, not a module of ours
"""Make what must be secret in the compose project, once: a folder for each service, which is a volume of its own.

The first service runs this and sees all of them; every other mounts its own, so that a store holds no admin token.
"""

import secrets
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tidegate.contract.credentials import RANDOM_BYTES, make_credential


def contents() -> dict[str, dict[str, str]]:
    """Every file's text, by service. ``env`` is read by shells, so its values hold no character that a shell knows."""
    postgres, valkey, signing = secrets.token_urlsafe(24), secrets.token_urlsafe(24), secrets.token_bytes(RANDOM_BYTES)
    public = Ed25519PrivateKey.from_private_bytes(signing).public_key().public_bytes_raw().hex()
    admin = make_credential("admin", secrets.token_bytes(RANDOM_BYTES)) + "\n"
    database = _env(TIDEGATE_DATABASE_URL=f"postgresql://tidegate:{postgres}@postgres:5432/tidegate")
    region = {"TIDEGATE_REGION_CREDENTIAL": make_credential("region", secrets.token_bytes(RANDOM_BYTES))}
    store = {"TIDEGATE_REDIS_URL": f"redis://:{valkey}@valkey:6379/0", "TIDEGATE_CONTROL_PLANE_PUBLIC_KEY": public}
    return {
        "postgres": {"password": postgres},
        "valkey": {
            "valkey.conf": f"requirepass {valkey}\nmaxmemory 256mb\nmaxmemory-policy noeviction\nappendonly yes\n"
        },
        "migrate": {"env": database},
        "control-plane": {"env": database, "signing-key": signing.hex() + "\n", "admin-token": admin},
        "region": {"env": _env(**region), "admin-token": admin},
        "node": {"env": _env(**region, **store)},
        "agent": {"env": _env(**region, **store)},
    }


def _env(**values: str) -> str:
    return "".join(f"export {name}={value}\n" for name, value in values.items())


def main(directory: Path) -> None:
    """Write the files unless the last of them is there.

    A project from before there were agents gives them the secrets of its nodes: new ones would not fit its volumes.
    """
    made = contents()
    last, of_nodes = directory / "agent" / "complete", directory / "node"
    if last.exists():
        return
    if (of_nodes / "complete").exists():
        made = {"agent": {"env": (of_nodes / "env").read_text()}}
    for service, files in made.items():
        (directory / service).mkdir(exist_ok=True)
        for name, text in files.items():
            (directory / service / name).write_text(text)
    last.touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
