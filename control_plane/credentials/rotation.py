"""The rotation of a credential: the same for tokens, keys, reporters and regions."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from pydantic import BaseModel

from control_plane.orm import KnownBySecret
from control_plane.publishing.writer import ConfigWrite
from control_plane.web.etags import Preconditions
from tidegate.contract.credentials import RANDOM_BYTES, CredentialKind, make_credential

Row = TypeVar("Row", bound=KnownBySecret)


@dataclass(frozen=True)
class Rotation:
    """What a rotation is made from: the random bytes of the new secret, and until when the one before works."""

    random: bytes
    keep_until: datetime | None
    """``None``: the old secret ends at once."""

    @classmethod
    def beginning_now(cls, overlap_s: int) -> "Rotation":
        """A rotation with an overlap of so many seconds from now on; 0 for none."""
        keep_until = datetime.now(UTC) + timedelta(seconds=overlap_s) if overlap_s else None
        return cls(secrets.token_bytes(RANDOM_BYTES), keep_until)


def rotate(
    write: ConfigWrite,
    row: Row,
    kind: CredentialKind,
    rotation: Rotation,
    preconditions: Preconditions,
    *,
    resource: str,
    name: str,
    view: Callable[[Row], BaseModel],
    publish: Callable[[ConfigWrite, Row], None],
) -> str:
    """Give ``row`` another secret, publish it and record it as a rotation. Returns the secret, to be shown once."""
    before = view(row)
    preconditions.check(before)
    secret = make_credential(kind, rotation.random)
    row.take_secret(secret, rotation.keep_until)
    publish(write, row)
    write.record(resource, name, before, view(row), "rotate")
    return secret
