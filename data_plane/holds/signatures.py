"""Signs holds, so that any node of the region can verify them: by a MAC, or by a signature during rotations. Pure.

Nodes with the same credential share a secret, and a MAC costs microseconds. A node with another credential of the
region knows the first one's public key only, and needs a signature, which costs a hundred times as much.
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


class HoldSigner:
    """Signs holds with the region's ``credential``; ``public_keys`` returns the region's current keys."""

    def __init__(self, credential: str, public_keys: Callable[[], Sequence[str]]) -> None:
        self._secret = hmac.digest(credential.encode(), b"tidegate holds", sha256)
        self._key = region_private_key(credential)
        self._own = region_public_key(credential)
        self._public_keys = public_keys

    def sign(self, hold: Hold) -> str:
        """The signed text of a hold."""
        body = msgspec.msgpack.encode(hold)
        if self._others():
            return urlsafe_b64encode(_BY_SIGNATURE + self._key.sign(_SIGNED_AS + body) + body).decode()
        return urlsafe_b64encode(_BY_MAC + self._mac(body) + body).decode()

    def verify(self, text: str, kind: Kind) -> Hold:
        """The hold of a signed text. Raises ``InvalidHoldError``."""
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
        """Public keys of other credentials that nodes of the region may use."""
        return [key for key in self._public_keys() if key and key != self._own]

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._secret, body, sha256)[:_MAC_BYTES]
