"""What a region makes of its backends, told to the control plane over HTTP with the region's credential."""

import ssl

import httpx
import msgspec

from data_plane.load.ports import ControlPlaneSilentError
from tidegate.contract.load import RegionLoad

TIMEOUT_S = 3.0


class HttpLoadReporting:
    """Port ``LoadReporting``."""

    def __init__(self, url: str, credential: str, tls: ssl.SSLContext | None = None) -> None:
        self._client = httpx.AsyncClient(
            base_url=url, headers={"authorization": f"Bearer {credential}"}, timeout=TIMEOUT_S, trust_env=False,
            verify=True if tls is None else tls,
        )  # fmt: skip

    async def report(self, load: RegionLoad) -> None:
        """One try; what is said next says the same."""
        try:
            response = await self._client.post(
                "/internal/v1/load", content=msgspec.json.encode(load), headers={"content-type": "application/json"}
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ControlPlaneSilentError(f"{type(error).__name__}: {error}") from error
        if not response.is_success:
            raise ControlPlaneSilentError(f"answered {response.status_code}")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
