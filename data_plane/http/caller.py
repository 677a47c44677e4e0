"""Identifies the caller of the node: an open network, a gateway with a token, or an untrusted stranger."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Literal, NamedTuple

from tidegate.contract.config import Gateway

Trust = Literal["network", "token", "required"]
"""``network``: every caller is a trusted gateway. ``token``: strangers may ask, and a gateway token is needed
to speak for clients. ``required``: every request needs a gateway token."""

Headers = Sequence[tuple[bytes, bytes]]
TOKEN_HEADER = b"x-tidegate-token"
REQUEST_ID_HEADER = b"x-request-id"


class Caller(NamedTuple):
    """``trusted`` may name clients, endpoints and costs; ``gateway`` is set when a token proved it."""

    trusted: bool
    gateway: Gateway | None


NETWORK = Caller(True, None)
STRANGER = Caller(False, None)


def identify(token: bytes | None, trust: Trust, find: Callable[[bytes], Gateway | None], now_s: float) -> Caller | None:
    """The caller by the token it sent, or ``None`` when a token is required and there is no valid one.

    An invalid token is refused: a revoked gateway must notice, not be served as a stranger.
    """
    if token is None:
        return NETWORK if trust == "network" else STRANGER if trust == "token" else None
    gateway = find(sha256(token).digest())  # found by its hash: nothing secret is compared byte by byte
    if gateway is None or (gateway.expires_at is not None and gateway.expires_at <= now_s):
        return None
    return Caller(True, gateway)


def header(headers: Headers, name: bytes) -> bytes | None:
    """The first value of a header (lower-case ``name``), or ``None``."""
    for key, value in headers:
        if key == name:
            return value
    return None
