"""Delivers messages: signed POSTs to public addresses, without redirects, tried again after longer and longer pauses.

Receivers take turns of a few messages each, many receivers at once: a slow or dead one delays only its own messages.
"""

import asyncio
import itertools
import random
import socket
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import NamedTuple

import httpx
import msgspec
from sqlalchemy import func

from control_plane.database import Database
from control_plane.jobs.registry import Job
from control_plane.usage.models import UsageAlert, UsageWebhookRow
from control_plane.usage.webhooks import repository
from control_plane.usage.webhooks.addresses import all_public, host_of
from control_plane.usage.webhooks.alerts import find_alerts
from control_plane.usage.webhooks.service import WebhookKeys, signed_headers

TIMEOUT_S = 5.0
AT_ONCE = 20
"""Receivers."""
A_TURN = 4
"""Messages to one receiver at a time."""
RUN_S = 40.0
"""How long turns begin in one run; what is left is due in the next."""
LOOK_UPS_AT_ONCE = 2 * AT_ONCE * A_TURN
"""Those that were given up go on for a while."""
LOOK_EVERY_S = 0.5
CLAIMED_FOR = timedelta(seconds=60)
MAX_ATTEMPTS = 15
FIRST_PAUSE_S = 10.0
LONGEST_PAUSE_S = 3_600.0
FIND_EVERY_S = 60.0
FIND_SHARE = 0.1
"""A look at the monthly limits of 100,000 clients takes some 20 s of the database."""
DELIVER_EVERY_S = 5.0


class UndeliverableError(Exception):
    """The message was not delivered; the text gives the reason."""


class _Message(NamedTuple):
    alert: UsageAlert
    webhook: UsageWebhookRow


class Deliverer:
    """Sends what is due. ``may_reach_private``: for tests and for receivers on the operator's own network."""

    def __init__(self, database: Database, keys: WebhookKeys, *, may_reach_private: bool) -> None:
        self._database = database
        self._keys = keys
        self._may_reach_private = may_reach_private
        # the event loop's own threads take usage, and a receiver's name server may be silent
        self._look_ups = ThreadPoolExecutor(LOOK_UPS_AT_ONCE, "look-ups")

    def jobs(self) -> list[Job]:
        """The leader's jobs: find alerts, and deliver messages."""
        return [
            Job("usage-alerts", FIND_EVERY_S, self._find, share=FIND_SHARE, idle=self._none_enabled),
            Job("usage-webhooks", DELIVER_EVERY_S, self._deliver, timeout_s=60.0, idle=self._none_due),
        ]

    async def _none_enabled(self) -> bool:
        async with self._database.read() as session:
            return not await repository.enabled(session)

    async def _none_due(self) -> bool:
        return not await self._due(())

    async def _find(self) -> str:
        return f"Noted {await find_alerts(self._database, datetime.now(UTC))} messages."

    async def _deliver(self) -> str:
        sent, failed = await self.deliver_due()
        return f"Delivered {sent}, failed {failed}."

    async def deliver_due(self) -> tuple[int, int]:
        """Try what is due; how many arrived, how many did not. A receiver that takes none of a turn has its next turn
        in another run.
        """
        if not await self._due(()):
            return 0, 0  # a client would read the certificate authorities, which takes tens of milliseconds
        sent = failed = 0
        turns = itertools.count(1)
        last_turn: dict[str, int] = {}
        unreachable: set[str] = set()
        under_way: dict[asyncio.Task[list[bool]], str] = {}
        until = time.monotonic() + RUN_S
        # httpx keeps cookies by address, and receivers may share one
        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
        async with httpx.AsyncClient(
            timeout=TIMEOUT_S, follow_redirects=False, trust_env=False, cookies=no_cookies
        ) as client:
            try:
                while True:
                    if time.monotonic() < until and len(under_way) < AT_ONCE:
                        due = await self._due({*unreachable, *under_way.values()})
                        due.sort(key=lambda webhook: last_turn.get(webhook, 0))
                        for webhook in due[: AT_ONCE - len(under_way)]:
                            last_turn[webhook] = next(turns)
                            under_way[asyncio.create_task(self._turn(client, webhook))] = webhook
                    if not under_way:
                        return sent, failed
                    ended, _ = await asyncio.wait(under_way, timeout=LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
                    for task in ended:
                        webhook, outcomes = under_way.pop(task), task.result()
                        sent += sum(outcomes)
                        failed += len(outcomes) - sum(outcomes)
                        if not any(outcomes):
                            unreachable.add(webhook)
            finally:
                for task in under_way:
                    task.cancel()
                await asyncio.gather(*under_way, return_exceptions=True)

    async def _turn(self, client: httpx.AsyncClient, webhook: str) -> list[bool]:
        """Send a few messages of one webhook. Returns whether each was delivered."""
        messages = await self._claim(webhook)
        return await asyncio.gather(*(self._try(client, message) for message in messages))

    async def _due(self, without: Iterable[str]) -> list[str]:
        """Webhooks with messages that are due."""
        async with self._database.read() as session:
            return list(await repository.with_due_messages(session, without))

    async def _claim(self, webhook: str) -> Sequence[_Message]:
        """Claim some due messages for a minute; after a crash they are tried again."""
        async with self._database.transaction() as session:
            messages = [_Message(alert, row) for alert, row in await repository.lock_due(session, webhook, A_TURN)]
            for message in messages:
                message.alert.attempts += 1
                message.alert.due_at = func.now() + CLAIMED_FOR
        return messages

    async def _try(self, client: httpx.AsyncClient, message: _Message) -> bool:
        try:
            await self._send(client, message)
        except UndeliverableError as error:
            await self._note(message.alert, str(error))
            return False
        await self._note(message.alert, None)
        return True

    async def _send(self, client: httpx.AsyncClient, message: _Message) -> None:
        body = _body(message.alert)
        webhook = message.webhook
        secret = self._keys.secret(webhook.webhook, webhook.salt)
        try:
            url = httpx.URL(webhook.url)
        except httpx.InvalidURL as error:  # from before such were refused
            raise UndeliverableError("the URL is none") from error
        address = await self._address(url)
        headers = {
            "Host": url.netloc.decode(),
            "Content-Type": "application/json",
            "User-Agent": "tidegate",
            **signed_headers(secret, message.alert.alert, datetime.now(UTC), body),
        }
        # to the address that was checked, not to what the name resolves to a moment later
        request = client.build_request(
            "POST",
            url.copy_with(host=address),
            content=body,
            headers=headers,
            extensions={"sni_hostname": host_of(url)},
        )
        try:
            async with asyncio.timeout(2 * TIMEOUT_S):
                response = await client.send(request, stream=True)
                await response.aclose()
        except (httpx.HTTPError, TimeoutError) as error:
            raise UndeliverableError(f"{type(error).__name__}") from error
        if not response.is_success:
            raise UndeliverableError(f"answered {response.status_code}")

    async def _address(self, url: httpx.URL) -> str:
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                look_up = partial(socket.getaddrinfo, host_of(url), port, type=socket.SOCK_STREAM)
                found = await asyncio.get_running_loop().run_in_executor(self._look_ups, look_up)
        except (OSError, TimeoutError, UnicodeError) as error:
            raise UndeliverableError("the host has no address") from error
        addresses = [str(entry[4][0]) for entry in found]
        if not self._may_reach_private and not all_public(addresses):
            raise UndeliverableError("the host has an address that is not public")
        return addresses[0]

    async def _note(self, alert: UsageAlert, error: str | None) -> None:
        values: dict[str, object] = {"error": error, "due_at": None}
        if error is None:
            values["delivered_at"] = func.now()
        elif alert.attempts < MAX_ATTEMPTS:
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (alert.attempts - 1))
            values["due_at"] = func.now() + timedelta(seconds=pause_s * random.uniform(0.8, 1.2))  # noqa: S311
        async with self._database.transaction() as session:
            await repository.note(session, alert.alert, values)


def _body(alert: UsageAlert) -> bytes:
    return msgspec.json.encode(
        {
            "event": "usage.threshold",
            "id": alert.alert,
            "client": alert.client,
            "plan": alert.plan,
            "limit": alert.limit_name,
            "threshold": alert.percent / 100,
            "used": alert.used,
            "of": alert.limit,
            "window_start": alert.window_start,
            "created_at": alert.created_at,
        }
    )
