"""Sends usage and answers to the control plane over HTTP, with the region's credential."""

import ssl
from collections.abc import Sequence

import httpx
import msgspec

from data_plane.usage.shipper import ControlPlaneUnavailableError
from tidegate.contract.decoding import UNREADABLE
from tidegate.contract.questions import NodeAnswer, Question, Questions
from tidegate.contract.usage import Shipment, ShipmentAnswer

PATH = "/internal/v1/usage"
TIMEOUT_S = 15.0
_decoder = msgspec.json.Decoder(ShipmentAnswer)
_questions_decoder = msgspec.json.Decoder(Questions)


def _content(response: httpx.Response) -> bytes:
    if not response.is_success:
        raise ControlPlaneUnavailableError(f"answered {response.status_code}")
    return response.content


class HttpUsageSink:
    """Implements ``UsageSink`` and ``QuestionTransport`` over one pooled client."""

    def __init__(self, url: str, credential: str, node: str, region: str, tls: ssl.SSLContext | None = None) -> None:
        self._node = node
        self._region = region
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"authorization": f"Bearer {credential}"},
            timeout=httpx.Timeout(TIMEOUT_S, connect=2.0),
            trust_env=False,
            verify=True if tls is None else tls,
        )

    async def ship(self, batches: Sequence[bytes], complete_until_ms: int | None) -> ShipmentAnswer:
        """Send once; the shipper retries."""
        shipment = Shipment(
            region=self._region, node=self._node, batches=tuple(batches), complete_until_ms=complete_until_ms
        )
        try:
            body, headers = msgspec.msgpack.encode(shipment), {"content-type": "application/octet-stream"}
            response = await self._client.post(PATH, content=body, headers=headers)
            return _decoder.decode(_content(response))
        except (httpx.HTTPError, httpx.InvalidURL, *UNREADABLE) as error:
            raise ControlPlaneUnavailableError(f"{type(error).__name__}: {error}") from error

    async def questions(self, wait_s: float) -> Sequence[Question]:
        """Wait for questions."""
        try:
            timeout = httpx.Timeout(TIMEOUT_S, read=wait_s + TIMEOUT_S)
            response = await self._client.get("/internal/v1/questions", params={"wait": wait_s}, timeout=timeout)
            return _questions_decoder.decode(_content(response)).questions
        except (httpx.HTTPError, httpx.InvalidURL, *UNREADABLE) as error:
            raise ControlPlaneUnavailableError(f"{type(error).__name__}: {error}") from error

    async def answer(self, answer: NodeAnswer) -> None:
        """Send one answer."""
        try:
            headers = {"content-type": "application/json"}
            body = msgspec.json.encode(answer)
            _content(await self._client.post("/internal/v1/answers", content=body, headers=headers))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ControlPlaneUnavailableError(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
