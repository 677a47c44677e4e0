"""Kong's two plugins that limit rates: what they allow in which windows, by whom they count, what has no counterpart.

Source: Kong's plugin reference, `rate-limiting` and `rate-limiting-advanced`.
"""

import re
from typing import Any, NamedTuple

from tidegate.file.document import FileError
from tidegate.importing.remarks import Remarks
from tidegate.importing.source import Part

PLAIN, ADVANCED = "rate-limiting", "rate-limiting-advanced"
NAMES = (PLAIN, ADVANCED)
PERIODS = {"second": "s", "minute": "min", "hour": "h", "day": "day", "month": "month", "year": "365day"}
LENGTHS_S = {1: "second", 60: "minute", 3_600: "hour", 86_400: "day", 604_800: "week"}
LONGEST_S = 366 * 86_400
FIELDS = {
    "consumer": "client", "credential": "client", "ip": "ip", "service": "backend", "route": "endpoint",
    "path": "endpoint",
}  # fmt: skip
NO_COUNTERPART = {
    "error_code": "a denial is 429",
    "error_message": "a denial's body is a problem (RFC 9457) that names the limit",
    "retry_after_jitter_max": "Retry-After is exact; clients add a spread of their own",
    "throttling": "nothing is delayed and tried again; `algorithm: leaky_bucket` gives requests their turn",
    "enforce_consumer_groups": "give the plan of a group its limits",
    "consumer_groups": "give the plan of a group its limits",
    "counter_key": "a client counts by its name",
}
KNOWN = {
    *PERIODS, *NO_COUNTERPART, "limit", "window_size", "window_type", "limit_by", "identifier", "compound_identifier",
    "header_name", "path", "policy", "strategy", "sync_rate", "fault_tolerant", "hide_client_headers",
    "disable_penalty", "namespace", "dictionary_name", "lock_dictionary_name", "redis",
}  # fmt: skip


class Allowance(NamedTuple):
    """``name`` of the window, the rate as a file writes it, and the algorithm that counts it."""

    name: str
    rate: str
    algorithm: str


class RatePlugin(NamedTuple):
    """``targets`` are what it is put on: of service, route, consumer and consumer_group those that it names."""

    kind: str
    place: str
    targets: dict[str, str]
    allowances: tuple[Allowance, ...]
    by: tuple[str, ...]
    members: dict[str, Any]

    @property
    def by_client(self) -> bool:
        """Whether it counts by who is authenticated, and by address for everybody else."""
        return "client" in self.by


def rate_plugin(part: Part, targets: dict[str, str], remarks: Remarks) -> RatePlugin:
    """Read one. Raises ``FileError``."""
    config, advanced = part.part("config"), part.needed("name") == ADVANCED
    place = part.place
    for name in config.value:
        if name in NO_COUNTERPART and config.value[name] not in (None, False, [], {}):
            remarks.add("left out", place, f"{name}: {NO_COUNTERPART[name]}")
        elif name not in KNOWN and not name.startswith("redis_"):
            remarks.add("left out", place, f"{name} is not known")
    allowances = _sliding(config, remarks, place) if advanced else _periods(config, remarks, place)
    if not allowances:
        raise FileError(f"{config.place}: allows nothing in no window")
    _remark_on_stores(config, place, remarks, advanced=advanced)
    members: dict[str, Any] = {}
    if config.flag("hide_client_headers"):
        members["visible"] = False
    fault_tolerant = config.flag("fault_tolerant")
    if fault_tolerant is not None:
        members["on_store_failure"] = "open" if fault_tolerant else "closed"
    return RatePlugin(
        part.needed("name"), place, targets, tuple(allowances), _by(config, place, remarks, advanced=advanced), members
    )


def _periods(config: Part, remarks: Remarks, place: str) -> list[Allowance]:
    found = []
    for period, unit in PERIODS.items():
        if period in config:
            units = _units(config.value[period], f"{config.place}.{period}")
            found.append(Allowance(period, f"{units}/{unit}", "fixed_window"))
            if period == "year":
                remarks.add("differs", place, "year: windows of 365 days, which begin on no first of January")
    return found


def _sliding(config: Part, remarks: Remarks, place: str) -> list[Allowance]:
    limits, sizes = config.items("limit"), config.items("window_size")
    if len(limits) != len(sizes):
        raise FileError(f"{config.place}: limit and window_size are not of one length")
    kind = config.text("window_type") or "sliding"
    if kind not in {"sliding", "fixed"}:
        raise FileError(f"{config.place}.window_type: {kind!r} is neither sliding nor fixed")
    if kind == "sliding" and not config.flag("disable_penalty"):
        remarks.add("differs", place, "disable_penalty: false: here a denied request consumes nothing")
    found = []
    for at, (limit, size) in enumerate(zip(limits, sizes, strict=True)):
        units = _units(limit, f"{config.place}.limit[{at}]")
        seconds = _units(size, f"{config.place}.window_size[{at}]")
        if not 0 < seconds <= LONGEST_S:
            raise FileError(f"{config.place}.window_size[{at}]: must be from 1 to {LONGEST_S} seconds")
        found.append(Allowance(LENGTHS_S.get(seconds, f"{seconds}s"), f"{units}/{seconds}s", f"{kind}_window"))
    return found


def _units(value: Any, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10**12 or value != int(value):
        raise FileError(f"{place}: must be a whole number from 0 to {10**12}")
    return int(value)


def _by(config: Part, place: str, remarks: Remarks, *, advanced: bool) -> tuple[str, ...]:
    """The dimensions of the limit; empty where nothing here counts like that."""
    identifier = config.text("identifier" if advanced else "limit_by") or "consumer"
    found = []
    for name in [str(item) for item in config.items("compound_identifier")] or [identifier]:
        if name == "header":
            header = re.sub(r"[^a-z0-9_-]", "-", config.needed("header_name").lower())[:64]
            found.append(f"attribute:{header}")
            text = f"by header {header}: whoever asks sends it as an attribute; requests without it count together"
            remarks.add("to do", place, text)
        elif name in FIELDS:
            found.append(FIELDS[name])
            if name == "credential":
                remarks.add("differs", place, "by credential: the keys of one client count together")
            elif name == "path":
                remarks.add("differs", place, "by path: requests count by endpoint")
        else:
            remarks.add("left out", place, f"nothing counts by {name}")
            return ()
    return tuple(dict.fromkeys(found))


def _remark_on_stores(config: Part, place: str, remarks: Remarks, *, advanced: bool) -> None:
    policy = config.text("strategy" if advanced else "policy")
    if policy == "local" or config.text("sync_rate") == "-1":
        remarks.add(
            "differs", place, "counts of each Kong node for itself: here all nodes of all regions count together"
        )
    elif advanced and config.text("sync_rate") not in {None, "0"}:
        remarks.add("differs", place, "sync_rate: nothing waits to be synchronised in a region; regions by `mode`")
    if any(name == "redis" or name.startswith("redis_") for name in config.value):
        remarks.add("to do", place, "redis: where a region's store is, its nodes learn from TIDEGATE_REDIS_URL")
    if "namespace" in config:
        remarks.add("differs", place, "namespace: each limit has counters of its own, whatever plugins share one")
