"""How the nodes of a region know each other's holds: by a MAC, or while its credential is rotated by a signature. Pure.

Nodes with the same credential have the same secret, and a MAC costs microseconds. One that runs with another credential
of the region knows only the public key of the first: for it a signature is needed, at a hundred times the cost.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Sequence
from hashlib import sha256

import msgspec

from data_plane.holds.tokens import Hold, InvalidHoldError, Kind
from tidegate.contract.credentials import is_signed_by, region_private_key, region_public_key
from tidegate.contract.decoding import UNREADABLE

_BY_MAC, _BY_SIGNATURE = b"m", b"s"
_MAC_BYTES, _SIGNATURE_BYTES = 16, 64
_SIGNED_AS = b"tidegate hold\0"
_decoder = msgspec.msgpack.Decoder(Hold)


class Seals:
    """Seals holds with the region's ``credential``; ``public_keys`` are those the region has just now."""

    def __init__(self, credential: str, public_keys: Callable[[], Sequence[str]]) -> None:
        self._secret = hmac.digest(credential.encode(), b"tidegate holds", sha256)
        self._key = region_private_key(credential)
        self._own = region_public_key(credential)
        self._public_keys = public_keys

    def seal(self, hold: Hold) -> str:
        """The text that names the hold."""
        body = msgspec.msgpack.encode(hold)
        if self._others():
            return urlsafe_b64encode(_BY_SIGNATURE + self._key.sign(_SIGNED_AS + body) + body).decode()
        return urlsafe_b64encode(_BY_MAC + self._mac(body) + body).decode()

    def unseal(self, text: str, kind: Kind) -> Hold:
        """The hold that a text names. Raises ``InvalidHoldError``."""
        try:
            raw = urlsafe_b64decode(text.encode("ascii"))
        except (Base64Error, ValueError):
            raise InvalidHoldError("not a text that a node gave") from None
        how, length = raw[:1], _SIGNATURE_BYTES if raw[:1] == _BY_SIGNATURE else _MAC_BYTES
        proof, body = raw[1 : 1 + length], raw[1 + length :]
        if how == _BY_SIGNATURE:
            is_ours = is_signed_by([self._own, *self._others()], proof, _SIGNED_AS + body)
        else:
            is_ours = how == _BY_MAC and hmac.compare_digest(proof, self._mac(body))
        if not is_ours:
            raise InvalidHoldError("not signed by this region")
        try:
            hold = _decoder.decode(body)
        except UNREADABLE:
            raise InvalidHoldError("of another version") from None
        if hold.kind != kind:
            raise InvalidHoldError(f"this is a {hold.kind}")
        return hold

    def _others(self) -> list[str]:
        """Keys of credentials that other nodes of the region may run with."""
        return [key for key in self._public_keys() if key and key != self._own]

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._secret, body, sha256)[:_MAC_BYTES]
