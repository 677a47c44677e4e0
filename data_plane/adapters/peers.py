"""Counts to other regions over HTTP: MessagePack, deflated, signed with the region's key."""

import zlib

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from contract.counts import Counts, CountsAnswer, signed_counts
from data_plane.services.reconcile import UnreachablePeerError

TIMEOUT_S = 1.5
_decoder = msgspec.json.Decoder(CountsAnswer)


class HttpPeers:
    """Port ``PeerTransport`` over one pooled client."""

    def __init__(self, region: str, key: Ed25519PrivateKey) -> None:
        self._region = region
        self._key = key
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False)
        self.sent_bytes = 0

    async def send(self, to_region: str, url: str, counts: Counts) -> CountsAnswer:
        """Deliver one batch; one try, because the next tick is the retry."""
        body = zlib.compress(msgspec.msgpack.encode(counts), level=1)
        headers = {
            "content-type": "application/vnd.tidegate.counts",
            "x-tidegate-region": self._region,
            "x-tidegate-signature": self._key.sign(signed_counts(to_region, body)).hex(),
        }
        try:
            response = await self._client.post(url.rstrip("/") + "/internal/v1/counts", content=body, headers=headers)
            if response.status_code != 200:
                raise UnreachablePeerError(f"answered {response.status_code}")
            self.sent_bytes += len(body)
            return _decoder.decode(response.content)
        except (httpx.HTTPError, httpx.InvalidURL, msgspec.DecodeError) as error:
            raise UnreachablePeerError(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
