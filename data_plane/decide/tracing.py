"""Decisions as OpenTelemetry spans, sent as OTLP JSON over HTTP. They are made after the decision, from its times.

Own code, because it is little (https://opentelemetry.io/docs/specs/otlp/#otlphttp); docs/decisions/0009 says why.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import structlog

from data_plane.decide.pending_check import PendingCheck, Verdict
from data_plane.process import HTTP_ERRORS, HttpClient
from data_plane.store.ports import Clock

log = structlog.get_logger()

SEND_EVERY_S = 1.0
TIMEOUT_S = 3.0
MOST_WAITING = 4_096
"""Spans beyond this are dropped and counted, so that an unreachable collector costs no memory."""
_SPAN_KIND_SERVER = 2


class Tracing:
    """An observer of the decider: ``share`` of decisions are spans, in the caller's trace where it samples one.

    Every trace that a caller samples is continued only with ``follow_caller``. Where a gateway passes the header on, it
    is an end client's, who could have a span made of each request.
    ``random`` gives floats in [0, 1), ``random_bytes`` ids. ``about`` describes this node (resource attributes).
    """

    def __init__(
        self, url: str, share: float, about: dict[str, str], *, follow_caller: bool,
        clock: Clock, random: Callable[[], float], random_bytes: Callable[[int], bytes],
    ) -> None:  # fmt: skip
        self._client = HttpClient(aiohttp.ClientTimeout(2 * TIMEOUT_S, connect=TIMEOUT_S, sock_read=TIMEOUT_S))
        self._url = url
        self._share = share
        self._follow_caller = follow_caller
        self._resource = {"attributes": _attributes(about)}
        self._clock = clock
        self._random = random
        self._random_bytes = random_bytes
        self._waiting: list[dict[str, Any]] = []
        self._away = False
        self.sent = 0
        self.dropped = 0

    def passed(self, check: PendingCheck, *, degraded: bool) -> None:
        """Every limit allowed the check."""
        parent = self._parent(check)
        if parent is not None:
            about = {"tidegate.allowed": True, "tidegate.degraded": degraded}
            self._note(check, parent, self._clock.now_us(), about)

    def decided(self, check: PendingCheck, verdict: Verdict, now_us: int) -> None:
        """The check ended otherwise."""
        parent = self._parent(check)
        if parent is not None:
            about = {"tidegate.allowed": verdict.allowed, "tidegate.degraded": verdict.degraded}
            self._note(check, parent, now_us, about, ",".join(verdict.violated))

    async def run(self) -> None:
        """Send the waiting spans once a second, for ever."""
        while True:
            await asyncio.sleep(SEND_EVERY_S)
            await self.send()

    async def send(self) -> None:
        """Send the waiting spans; those that the collector refuses are dropped and counted."""
        spans, self._waiting = self._waiting, []
        if not spans:
            return
        scope = {"scope": {"name": "tidegate"}, "spans": spans}
        body = {"resourceSpans": [{"resource": self._resource, "scopeSpans": [scope]}]}
        try:
            await self._client.ask("POST", self._url, json=body)
        except HTTP_ERRORS as error:
            self.dropped += len(spans)
            if not self._away:
                log.warning("traces_not_sent", error=f"{type(error).__name__}: {error}")
            self._away = True
        else:
            self.sent += len(spans)
            self._away = False

    async def close(self) -> None:
        """Send the waiting spans, and disconnect."""
        await self.send()
        await self._client.close()

    def _parent(self, check: PendingCheck) -> tuple[str, str] | None:
        """The caller's trace and span ids; empty to begin a trace, ``None`` for no span."""
        for name, value in check.headers:
            if name == b"traceparent":  # https://www.w3.org/TR/trace-context/: version-trace-span-flags
                parts = value.decode("latin-1").split("-")
                known = len(parts) >= 4 and _is_id(parts[1], 32) and _is_id(parts[2], 16) and _is_id(parts[3], 2)
                wanted = known and int(parts[3], 16) & 1 and (self._follow_caller or self._random() < self._share)
                return (parts[1], parts[2]) if wanted else None
        return ("", "") if self._random() < self._share else None

    def _note(
        self, check: PendingCheck, parent: tuple[str, str], now_us: int, about: dict[str, Any], violated: str = ""
    ) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self.dropped += 1
            return
        principal = check.principal
        about |= {
            "tidegate.client": "" if principal is None else principal.client.client,
            "tidegate.plan": check.limit_set.plan,
            "tidegate.endpoint": check.limit_set.endpoint,
            "tidegate.violated": violated,
            "tidegate.request_id": check.request_id,
        }
        trace, span = parent
        self._waiting.append({
            "traceId": trace or self._random_bytes(16).hex(),
            "parentSpanId": span,
            "spanId": self._random_bytes(8).hex(),
            "name": "tidegate.decide",
            "kind": _SPAN_KIND_SERVER,
            "startTimeUnixNano": str(check.asked_us * 1_000),
            "endTimeUnixNano": str(now_us * 1_000),
            "attributes": _attributes(about),
        })  # fmt: skip


def _is_id(text: str, length: int) -> bool:
    return len(text) == length and all(digit in "0123456789abcdef" for digit in text)


def _attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {"boolValue": value} if isinstance(value, bool) else {"stringValue": value}}
        for key, value in values.items()
        if value != ""
    ]
