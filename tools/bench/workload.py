"""Who asks what: 10,000 clients of each plan, with a key and an address each, on fifty routes. The same everywhere."""

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from tidegate.contract.config import ApiKey, Change, Client, Endpoint, Override, Plan, Region
from tidegate.contract.credentials import make_credential, secret_sha256
from tidegate.contract.limits import LimitRule
from tidegate.contract.load import Backend

CLIENTS = 10_000
ROUTES = 50
BATCH = 100
REGION = "bench"
# So high that nothing is denied: what is measured is a decision that passes, which writes as well as reads.
PLENTY = 10**9
HOUR_US = 3_600_000_000
SECOND_US = 1_000_000
_FIRST_ADDRESS = ipaddress.IPv4Address("100.64.0.1")

LIMITS: dict[str, tuple[LimitRule, ...]] = {
    "one": (LimitRule(id=101, name="hourly", limit=PLENTY, window_us=HOUR_US, mode="shared"),),
    "three": (
        LimitRule(id=201, name="hourly", limit=PLENTY, window_us=HOUR_US, mode="shared"),
        LimitRule(
            id=202, name="burst", algorithm="token_bucket", limit=PLENTY, window_us=SECOND_US, burst=PLENTY,
            mode="shared",
        ),
        LimitRule(id=203, name="per-ip", algorithm="fixed_window", scope="ip", limit=PLENTY, window_us=HOUR_US),
    ),
    "spent": (LimitRule(id=301, name="hourly", limit=1, window_us=HOUR_US, mode="shared"),),
}  # fmt: skip
"""The limits of each plan. There is one region, so ``shared`` limits have no peers to tell."""


class Caller(NamedTuple):
    """One client as its requests show it."""

    client: str
    key: str
    ip: str
    path: str


def callers(plan: str) -> Iterator[Caller]:
    """The clients of a plan, the same in every run."""
    for number in range(CLIENTS):
        name = f"customer-{plan}-{number:05}"
        key = make_credential("client_key", hashlib.sha256(name.encode()).digest())
        path = f"/api/resource{number % ROUTES}/{number * 7919 % 100_003}"
        yield Caller(name, key, str(_FIRST_ADDRESS + number), path)


def request_body(caller: Caller) -> bytes:
    """A check as api.md shows it."""
    return msgspec.json.encode(
        {"api_key": caller.key, "ip": caller.ip, "method": "GET", "path": caller.path, "cost": 1}
    )


def named_body(caller: Caller) -> bytes:
    """The same as an SDK may ask that the node trusts: client and endpoint by name."""
    endpoint = "get-" + caller.path.split("/")[2]
    return msgspec.json.encode({"client": caller.client, "endpoint": endpoint, "cost": 1})


def anonymous_body(caller: Caller) -> bytes:
    """The same by an address alone."""
    return msgspec.json.encode({"ip": caller.ip, "method": "GET", "path": caller.path, "cost": 1})


def write_subrequests(directory: Path, plan: str) -> Path:
    """What a gateway asks for each client, one a line: path, key and address, with tabs between."""
    path = directory / f"{plan}.subrequests"
    path.write_text("".join(f"{caller.path}\t{caller.key}\t{caller.ip}\n" for caller in callers(plan)))
    return path


def write_bodies(directory: Path, plan: str, batch: int) -> Path:
    """One request body a line, in a file; with ``batch`` above 1 each body holds so many checks."""
    path = directory / f"{plan}-{batch}.bodies"
    singles = [request_body(caller) for caller in callers(plan)]
    if batch == 1:
        lines = singles
    else:
        groups = (singles[start : start + batch] for start in range(0, len(singles), batch))
        lines = [b'{"checks":[' + b",".join(group) + b"]}" for group in groups]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def config_changes(regions: Iterable[Region] = (Region(region=REGION),)) -> Iterator[Change]:
    """The configuration of the node under test, as documents."""
    for region in regions:
        yield _change("region", region.region, region)
    yield _change("backend", "api", Backend(backend="api"))
    for number in range(ROUTES):
        name = f"get-resource{number}"
        path = f"/api/resource{number}/{{id}}"
        yield _change("endpoint", name, Endpoint(endpoint=name, method="GET", path=path, backend="api"))
    for plan, limits in LIMITS.items():
        yield _change("plan", plan, Plan(plan=plan, limits=limits))
        for caller in callers(plan):
            yield _change("client", caller.client, Client(client=caller.client, plan=plan))
            sha256 = secret_sha256(caller.key)
            yield _change("key", sha256, ApiKey(sha256=sha256, key_id=caller.client, client=caller.client))


def special_cases() -> Iterator[Change]:
    """The clients of the plan with one limit, each with a figure of its own, and a plan for who shows no key."""
    for number, caller in enumerate(callers("one")):
        own = Client(client=caller.client, plan="one", overrides={"hourly": Override(limit=PLENTY + number)})
        yield _change("client", caller.client, own)
    by_address = LimitRule(id=401, name="hourly", limit=PLENTY, window_us=HOUR_US, mode="shared", scope="ip")
    yield _change("plan", "anonymous", Plan(plan="anonymous", limits=(by_address,)))


def _change(kind: str, id: str, document: msgspec.Struct) -> Change:
    return Change(kind, id, msgspec.Raw(msgspec.json.encode(document, order="sorted")))
