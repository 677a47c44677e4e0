"""Readings of the admin API, and the rates between two of them. The rates are pure arithmetic."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from control_plane.console.figures import in_force
from tidegate.file.show import held_back

TIMEOUT_S = 5.0
BUSIEST = 10
READ = 100
"""So many of the busiest are read."""
LONGEST = timedelta(days=30)
"""A watch that lasts longer begins anew: the control plane adds up 31 days at most."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class NoReadingError(Exception):
    """The control plane could not be read; the text says why."""


@dataclass(frozen=True)
class Counts:
    """Requests and units since the watch began."""

    allowed: int
    denied: int
    cost: int


@dataclass(frozen=True)
class Reading:
    """What the control plane says at one moment. ``until`` is up to when a region's counts are complete."""

    at: datetime
    regions: tuple[str, ...]
    nodes: tuple[Mapping[str, Any], ...]
    by_region: Mapping[str, Counts]
    by_client: Mapping[str | None, Counts]
    until: Mapping[str, datetime | None]
    blocks: int
    overrides: tuple[str, ...]
    rollouts: tuple[str, ...] = ()
    """What each roll-out under way holds back, and where."""
    since: datetime = _EPOCH
    """From when requests are added up."""


@dataclass(frozen=True)
class RegionRates:
    """A region: requests a second between two readings (``None``: not known yet), and how old the news is."""

    region: str
    nodes: int
    connected: int
    behind: int
    """How many revisions the slowest connected node lacks."""
    allowed_per_s: float | None
    denied_per_s: float | None
    lag_s: float | None


@dataclass(frozen=True)
class ClientRates:
    """A client and its requests a second, or since the watch began while there is one reading only."""

    client: str | None
    allowed: int
    denied: int
    allowed_per_s: float | None
    denied_per_s: float | None


@dataclass(frozen=True)
class View:
    """What is shown."""

    at: datetime
    regions: tuple[RegionRates, ...]
    nodes: tuple[Mapping[str, Any], ...]
    busiest: tuple[ClientRates, ...]
    blocks: int
    overrides: tuple[str, ...]
    rollouts: tuple[str, ...] = ()
    since: datetime = _EPOCH


class AdminReader:
    """Reads what `top` shows; ``since`` is from when usage is added up."""

    def __init__(self, url: str, token: str, since: datetime) -> None:
        self._url = url
        self._client = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=TIMEOUT_S, trust_env=False
        )
        self._since = _hour(since)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def read(self) -> Reading:
        """One reading. Raises ``NoReadingError``."""
        try:
            return self._reading()
        except (LookupError, TypeError, ValueError, AttributeError):
            raise NoReadingError(f"{self._url} does not answer as a control plane does") from None

    def _reading(self) -> Reading:
        at = datetime.now(UTC)
        if at - self._since > LONGEST:
            self._since = _hour(at)
        usage = self._all("/v1/usage", {"group_by": "region", "from": self._since.isoformat()})
        busiest = self._get("/v1/usage/busiest", {"count": str(READ), "from": self._since.isoformat()})
        return Reading(
            at=datetime.now(UTC),
            regions=tuple(item["region"] for item in self._all("/v1/regions")["items"]),
            nodes=tuple(self._all("/v1/nodes")["items"]),
            by_region={item["region"]: _counts(item) for item in usage["items"]},
            by_client={item["client"]: _counts(item) for item in busiest["items"]},
            until={region: _instant(at) for region, at in usage["complete_until"].items()},
            blocks=len(self._in_force("/v1/blocks")),
            overrides=tuple(f"{item['target']}: {item['mode']}" for item in self._in_force("/v1/enforcement")),
            rollouts=tuple(
                held_back(self._get(f"/v1/rollouts/{item['revision']}", {}))
                for state in ("node", "region")
                for item in self._get("/v1/rollouts", {"state": state})["items"]
            ),
            since=self._since,
        )

    def _in_force(self, path: str) -> list[Mapping[str, Any]]:
        return in_force(self._all(path)["items"], datetime.now(UTC))

    def _all(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What ``path`` answers, with the items of all pages."""
        params, items = {**(query or {}), "limit": "1000"}, []
        while True:
            part = self._get(path, params)
            items += part["items"]
            if part["next_cursor"] is None:
                return {**part, "items": items}
            params["cursor"] = part["next_cursor"]

    def _get(self, path: str, params: dict[str, str]) -> dict[str, Any]:
        try:
            response = self._client.get(path, params=params)
            if response.is_error:
                raise NoReadingError(f"{path} answered {response.status_code}: {_detail(response)}")
            body: dict[str, Any] = response.json()
        except httpx.HTTPError as error:
            raise NoReadingError(f"no answer from {self._url}: {error or type(error).__name__}") from None
        except ValueError:
            raise NoReadingError(f"{path} did not answer with JSON") from None
        return body


def _hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase


def _counts(item: Mapping[str, Any]) -> Counts:
    return Counts(item["allowed"], item["denied"], item["cost"])


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def compare(now: Reading, before: Reading | None) -> View:
    """What is shown of a reading, with rates since the one before, unless the watch began anew in between."""
    if before is not None and before.since != now.since:
        before = None
    clients = [_client_rates(client, counts, now, before) for client, counts in now.by_client.items()]
    clients.sort(key=lambda one: (-(one.allowed_per_s or 0) - (one.denied_per_s or 0), -one.allowed - one.denied))
    return View(
        at=now.at,
        regions=tuple(_region_rates(region, now, before) for region in now.regions),
        nodes=now.nodes,
        busiest=tuple(clients[:BUSIEST]),
        blocks=now.blocks,
        overrides=now.overrides,
        rollouts=now.rollouts,
        since=now.since,
    )


def _region_rates(region: str, now: Reading, before: Reading | None) -> RegionRates:
    nodes = [node for node in now.nodes if node["region"] == region and node.get("role", "node") == "node"]
    connected = [node for node in nodes if node["connected"]]
    until = now.until.get(region)
    allowed, denied = _rates(
        now.by_region.get(region),
        None if before is None else before.by_region.get(region),
        _passed_s(region, now, before),
    )
    return RegionRates(
        region=region,
        nodes=len(nodes),
        connected=len(connected),
        behind=max((node["behind"] for node in connected), default=0),
        allowed_per_s=allowed,
        denied_per_s=denied,
        lag_s=None if until is None else max(0.0, (now.at - until).total_seconds()),
    )


def _passed_s(region: str, now: Reading, before: Reading | None) -> float | None:
    """How much of a region's time lies between two readings: by the region's own clock."""
    until, earlier = now.until.get(region), None if before is None else before.until.get(region)
    return None if until is None or earlier is None else (until - earlier).total_seconds()


def _client_rates(client: str | None, counts: Counts, now: Reading, before: Reading | None) -> ClientRates:
    spans = [span for region in now.regions if (span := _passed_s(region, now, before))]
    earlier = None if before is None else before.by_client.get(client)
    if before is not None and earlier is None and len(before.by_client) >= READ:
        spans = []  # it was below those that were read, with nobody knows how many
    allowed, denied = _rates(counts, earlier, max(spans, default=None))
    return ClientRates(client, counts.allowed, counts.denied, allowed, denied)


def _rates(now: Counts | None, before: Counts | None, passed_s: float | None) -> tuple[float | None, float | None]:
    if passed_s is None or passed_s <= 0:
        return None, None
    now, before = now or Counts(0, 0, 0), before or Counts(0, 0, 0)
    return max(0, now.allowed - before.allowed) / passed_s, max(0, now.denied - before.denied) / passed_s
