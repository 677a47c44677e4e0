"""Messages to other regions over HTTP: MessagePack, deflated, signed with the region's key."""

import ssl
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_plane.store.ports import UnreachablePeerError
from tidegate.contract.counts import CountsAnswer, signed_counts
from tidegate.contract.credentials import is_signed_by
from tidegate.contract.decoding import UNREADABLE
from tidegate.contract.rights import RIGHTS_VERSION, Asks, Gifts, signed_asks, signed_gifts

TIMEOUT_S = 1.5
MAX_ANSWER_BYTES = 1024 * 1024
MAX_UNPACKED_BYTES = 1024 * 1024
_counts_answer = msgspec.json.Decoder(CountsAnswer)
_gifts = msgspec.msgpack.Decoder(Gifts)


class HttpPeers:
    """Implements ``PeerTransport`` and ``RightsTransport`` over one pooled client. Each call is one try; callers retry.

    ``public_keys`` returns a region's current keys (hex). Without ``tls`` servers need certificates of a public CA.
    """

    def __init__(
        self, region: str, key: Ed25519PrivateKey, public_keys: Callable[[str], Sequence[str]],
        tls: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        self._region = region
        self._key = key
        self._public_keys = public_keys
        self.client = httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False, verify=True if tls is None else tls)
        self.sent_bytes = 0
        self.received_bytes = 0
        self.messages = 0

    async def send(self, to_region: str, url: str, message: bytes) -> CountsAnswer:
        """Deliver one batch of counts."""
        body = zlib.compress(message, level=1)
        answer, _ = await self._post(url, "/internal/v1/counts", body, signed_counts(to_region, body))
        try:
            return _counts_answer.decode(answer)
        except UNREADABLE as error:
            raise UnreachablePeerError(f"{type(error).__name__}: {error}") from error

    async def ask(self, to_region: str, url: str, asks: Asks) -> Gifts:
        """Ask for rights. Returns the region's answer, its signature verified."""
        body = _packed(asks)
        answer, headers = await self._post(url, "/internal/v1/rights", body, signed_asks(to_region, body))
        try:
            signature = bytes.fromhex(headers.get("x-tidegate-signature", ""))
            if not is_signed_by(self._public_keys(to_region), signature, signed_gifts(self._region, body, answer)):
                raise UnreachablePeerError("an answer's signature is wrong")
            gifts = _gifts.decode(_unpacked(answer))
        except (ValueError, zlib.error, *UNREADABLE) as error:
            raise UnreachablePeerError(f"{type(error).__name__}: {error}") from error
        wrong = gifts.region != to_region or gifts.to_incarnation != asks.incarnation
        if wrong or gifts.version != RIGHTS_VERSION:
            raise UnreachablePeerError("an answer does not match the request")
        return gifts

    async def close(self) -> None:
        """Close the connections."""
        await self.client.aclose()

    async def _post(self, url: str, path: str, body: bytes, signed: bytes) -> tuple[bytes, httpx.Headers]:
        headers = {
            "content-type": "application/octet-stream",
            "x-tidegate-region": self._region,
            "x-tidegate-signature": self._key.sign(signed).hex(),
        }
        self.messages += 1
        self.sent_bytes += len(body)
        try:
            async with self.client.stream("POST", url.rstrip("/") + path, content=body, headers=headers) as response:
                if response.status_code != 200:
                    raise UnreachablePeerError(f"answered {response.status_code}")
                answer = bytearray()
                async for chunk in response.aiter_raw():
                    answer += chunk
                    if len(answer) > MAX_ANSWER_BYTES:
                        raise UnreachablePeerError(f"answered more than {MAX_ANSWER_BYTES} bytes")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UnreachablePeerError(f"{type(error).__name__}: {error}") from error
        self.received_bytes += len(answer)
        return bytes(answer), response.headers


def tls_of(ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """A TLS context with a private CA, and a client certificate (PEM; without ``key`` it holds the key too).

    Returns ``None`` if neither is given. Raises ``OSError`` for a file that is missing or no PEM.
    """
    if ca is None and certificate is None:
        return None
    context = ssl.create_default_context(cafile=ca)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def _packed(message: msgspec.Struct) -> bytes:
    return zlib.compress(msgspec.msgpack.encode(message), level=1)


def _unpacked(body: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    found = unpacker.decompress(body, MAX_UNPACKED_BYTES)
    if unpacker.unconsumed_tail:
        raise ValueError(f"more than {MAX_UNPACKED_BYTES} bytes unpacked")
    return found
