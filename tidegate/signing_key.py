"""`tidegate signing-key`: the key with which the control plane signs, made once; nodes get its public half."""

import os
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tidegate.stack.keyring import write_private


def make_or_show(path: Path) -> int:
    """Make the private key in ``path`` (mode 0600) unless it is there, print the public half; returns the exit code."""
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises for a name that is too long
        made = Ed25519PrivateKey.generate().private_bytes_raw()
        try:
            write_private(path, made.hex().encode() + b"\n")
        except OSError as error:
            print(f"tidegate: {path} cannot be written: {error.strerror}", file=sys.stderr)  # noqa: T201 - the answer
            return 1
    try:
        private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text().strip()))
    except OSError as error:
        print(f"tidegate: {path} cannot be read: {error.strerror}", file=sys.stderr)  # noqa: T201 - the answer
        return 1
    except ValueError:
        print(f"tidegate: {path} does not hold 64 hex digits", file=sys.stderr)  # noqa: T201 - the answer
        return 1
    print(private.public_key().public_bytes_raw().hex())  # noqa: T201 - the answer
    return 0
