"""The facts of a server when a connection is made, and whether it may hold counters."""

import logging
import re
from dataclasses import dataclass

log = logging.getLogger(__name__)

MINIMUM = {"redis": (6, 2), "valkey": (8, 0)}


class StoreMisconfiguredError(Exception):
    """The server answers but must not hold counters; the message says what to change."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """A server as ``INFO`` describes it; empty where the login may not ask. Sizes are bytes, 0 meaning no bound."""

    product: str = ""
    version: str = ""
    run_id: str = ""
    role: str = ""
    loading: bool = False
    used_memory: int = 0
    maxmemory: int = 0
    maxmemory_policy: str = ""


def read_info(text: str) -> ServerFacts:
    """Read the reply to ``INFO``; fields that are missing stay empty."""
    info = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    product = "valkey" if "valkey_version" in info else "redis"
    return ServerFacts(
        product=product,
        version=info.get(f"{product}_version", ""),
        run_id=info.get("run_id", ""),
        role=info.get("role", ""),
        loading=info.get("loading", "0") == "1",
        used_memory=int(info.get("used_memory", 0)),
        maxmemory=int(info.get("maxmemory", 0)),
        maxmemory_policy=info.get("maxmemory_policy", ""),
    )


def require_fit(facts: ServerFacts) -> None:
    """Raise ``StoreMisconfiguredError`` for a server that is too old or that evicts keys (a lost count is a breach)."""
    if not facts.version:
        log.warning("the store's login may not use INFO: its version and eviction policy are unchecked")
        return
    found = tuple(int(part) for part in re.findall(r"\d+", facts.version)[:2])
    least = MINIMUM[facts.product]
    if found < least:
        wanted = ".".join(map(str, least))
        raise StoreMisconfiguredError(f"{facts.product} {facts.version} is too old: {wanted} or newer is needed")
    if facts.maxmemory_policy and facts.maxmemory_policy != "noeviction":
        raise StoreMisconfiguredError(
            f"maxmemory-policy is {facts.maxmemory_policy}: counters would vanish. Set it to noeviction"
        )
