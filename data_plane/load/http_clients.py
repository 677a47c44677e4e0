"""HTTP clients of an agent: it pulls signals from Prometheus-compatible servers and reports loads to the control plane.

The agent's settings name the servers. The configuration chooses among them and writes queries; it sets no address. An
answer may take two seconds and 1 MiB, without redirects.
"""

import math
import ssl
from collections.abc import Mapping

import aiohttp
import msgspec

from data_plane.load.controller import lower_median
from data_plane.load.deciding import PullError
from data_plane.process import HTTP_ERRORS, HttpClient, bounded_body, control_plane_errors
from tidegate.contract.decoding import UNREADABLE
from tidegate.contract.load import RegionLoad

MAX_BYTES = 1024 * 1024
TIMEOUT_S = 2.0
REPORT_TIMEOUT_S = 3.0


class _Sample(msgspec.Struct, frozen=True):
    value: tuple[float, str]


class _Data(msgspec.Struct, frozen=True, rename="camel"):
    result_type: str
    result: msgspec.Raw


class _Answer(msgspec.Struct, frozen=True):
    status: str
    data: _Data


class PrometheusServers:
    """Implements ``LoadServers``. ``urls`` are base URLs by name."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = {name: url.rstrip("/") + "/api/v1/query" for name, url in urls.items()}
        self._client = HttpClient(aiohttp.ClientTimeout(total=TIMEOUT_S))

    async def ask(self, server: str, query: str) -> float:
        """The value of an instant query; the lower median of several samples."""
        url = self._urls.get(server)
        if url is None:
            raise PullError("unknown_server")
        try:
            body = await self._body(url, query)
        except TimeoutError:
            raise PullError("timeout") from None
        except HTTP_ERRORS:
            raise PullError("unreachable") from None
        return _value(body)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _body(self, url: str, query: str) -> bytes:
        # the URL and the answer may hold secrets: neither is logged
        async with self._client.request("GET", url, params={"query": query}) as response:
            if response.status != 200:
                raise PullError("redirect" if 300 <= response.status < 400 else "refused")
            body = await bounded_body(response, MAX_BYTES)
            if body is None:
                raise PullError("too_large")
            return body


def _value(body: bytes) -> float:
    try:
        answer = msgspec.json.decode(body, type=_Answer)
        if answer.data.result_type == "scalar":
            values = [float(msgspec.json.decode(answer.data.result, type=tuple[float, str])[1])]
        elif answer.data.result_type == "vector":
            values = [float(sample.value[1]) for sample in msgspec.json.decode(answer.data.result, type=list[_Sample])]
        else:
            raise PullError("malformed")
    except (*UNREADABLE, ValueError):
        raise PullError("malformed") from None
    if answer.status != "success" or not values:
        raise PullError("empty")
    if not all(math.isfinite(value) and value >= 0 for value in values):
        raise PullError("implausible")
    return lower_median(values)


class HttpLoadReporting:
    """Implements ``LoadReporting``, with the region's credential."""

    def __init__(self, url: str, credential: str, tls: ssl.SSLContext | None) -> None:
        timeout = aiohttp.ClientTimeout(connect=REPORT_TIMEOUT_S, sock_read=REPORT_TIMEOUT_S)
        self._client = HttpClient(timeout, tls, url, credential)

    async def report(self, load: RegionLoad) -> None:
        """Send once; the next report replaces a lost one."""
        with control_plane_errors():
            await self._client.ask("POST", "/internal/v1/load", json=load)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
