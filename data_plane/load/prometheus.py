"""Prometheus-compatible servers that the node's own settings name, asked within narrow bounds.

Whoever writes the configuration can choose among these servers and write queries, and nothing else: no address, no
redirect, no more than 1 MiB and two seconds.
"""

import asyncio
import math
from collections.abc import Mapping

import httpx
import msgspec

from data_plane.load.ports import PullError
from data_plane.load.signals import lower_median
from tidegate.contract.decoding import UNREADABLE

MAX_BYTES = 1024 * 1024
TIMEOUT_S = 2.0


class _Sample(msgspec.Struct, frozen=True):
    value: tuple[float, str]


class _Data(msgspec.Struct, frozen=True, rename="camel"):
    result_type: str
    result: msgspec.Raw


class _Answer(msgspec.Struct, frozen=True):
    status: str
    data: _Data


class PrometheusServers:
    """Port ``LoadServers`` over HTTP. ``urls``: base URLs by name."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = {name: url.rstrip("/") + "/api/v1/query" for name, url in urls.items()}
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False)

    async def ask(self, server: str, query: str) -> float:
        """An instant query's value; of several samples the lower median."""
        url = self._urls.get(server)
        if url is None:
            raise PullError("unknown_server")
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return _value(await self._body(url, query))
        except (TimeoutError, httpx.TimeoutException):
            raise PullError("timeout") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError):
            raise PullError("unreachable") from None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _body(self, url: str, query: str) -> bytes:
        # the URL is not logged and the answer is not shown: either may hold what is not for everybody
        async with self._client.stream("GET", url, params={"query": query}) as response:
            if response.status_code != httpx.codes.OK:
                raise PullError("redirect" if response.is_redirect else "refused")
            body = b""
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise PullError("too_large")
            return body


def _value(body: bytes) -> float:
    try:
        answer = msgspec.json.decode(body, type=_Answer)
        if answer.data.result_type == "scalar":
            values = [float(msgspec.json.decode(answer.data.result, type=tuple[float, str])[1])]
        elif answer.data.result_type == "vector":
            values = [float(one.value[1]) for one in msgspec.json.decode(answer.data.result, type=list[_Sample])]
        else:
            raise PullError("malformed")
    except (*UNREADABLE, ValueError):
        raise PullError("malformed") from None
    if answer.status != "success" or not values:
        raise PullError("empty")
    if not all(math.isfinite(value) and value >= 0 for value in values):
        raise PullError("implausible")
    return lower_median(values)
