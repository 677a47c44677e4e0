"""Usage to the control plane over HTTP; the node dials out, with its region's credential."""

from collections.abc import Sequence

import httpx
import msgspec

from contract.usage import Shipment, ShipmentAnswer
from data_plane.services.usage import ControlPlaneAwayError

PATH = "/internal/v1/usage"
TIMEOUT_S = 15.0
_decoder = msgspec.json.Decoder(ShipmentAnswer)


class HttpUsageSink:
    """Port ``UsageSink`` over one pooled client."""

    def __init__(self, url: str, credential: str, node: str, region: str) -> None:
        self._node = node
        self._region = region
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"authorization": f"Bearer {credential}", "content-type": "application/msgpack"},
            timeout=httpx.Timeout(TIMEOUT_S, connect=2.0),
            trust_env=False,
        )

    async def ship(self, batches: Sequence[bytes], complete_until_ms: int | None) -> ShipmentAnswer:
        """One try; the next tick is the retry."""
        shipment = Shipment(
            region=self._region, node=self._node, batches=tuple(batches), complete_until_ms=complete_until_ms
        )
        try:
            response = await self._client.post(PATH, content=msgspec.msgpack.encode(shipment))
            if response.status_code != 200:
                raise ControlPlaneAwayError(f"answered {response.status_code}")
            return _decoder.decode(response.content)
        except (httpx.HTTPError, httpx.InvalidURL, msgspec.DecodeError) as error:
            raise ControlPlaneAwayError(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
