"""Units taken as an estimate, and the true cost said afterwards."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import msgspec

from tidegate_client.messages import Decision
from tidegate_client.nodes import Answered, NoAnswerError

AGAIN_AFTER_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
NOT_UNDERSTOOD = frozenset({400, 422})
_log = logging.getLogger("tidegate_client")


class Reservation:
    """Units taken as an estimate: settle them with the true cost. ``decision`` says whether there are any."""

    def __init__(self, decision: Decision, reserved: int) -> None:
        self.decision = decision
        self.reserved = reserved
        self.cost: int | None = None
        """The true cost; when it stays ``None``, the estimate stands."""

    @property
    def allowed(self) -> bool:
        """Whether the units were taken."""
        return self.decision.allowed


class Settlements:
    """Sends settlements. Any node of the region takes one, and only once: so it may be sent again, unlike all else."""

    def __init__(self, post: Callable[[str, bytes], Awaitable[Answered]], timeout_s: float) -> None:
        self._post = post
        self._timeout_s = timeout_s
        self.under_way: set[asyncio.Task[None]] = set()
        self._logged_mistake = False

    async def settle(self, text: str, cost: int) -> None:
        """Say the true cost; returns when a node has it, or after ``timeout_s``, and then goes on trying."""
        task = asyncio.create_task(self._send(msgspec.json.encode({"reservation": text, "cost": cost})))
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)
        await asyncio.wait({task}, timeout=self._timeout_s)

    async def aclose(self) -> None:
        """Wait ``timeout_s`` for what is under way; where that has no answer then, the estimate stands."""
        if self.under_way:
            _, late = await asyncio.wait(self.under_way, timeout=self._timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _send(self, body: bytes) -> None:
        for wait_s in (*AGAIN_AFTER_S, None):
            with contextlib.suppress(NoAnswerError):
                answered = await self._post("/v1/reservations/settle", body)
                if answered.status in NOT_UNDERSTOOD and not self._logged_mistake:
                    # A mistake of the application: a cost that is no whole number, say.
                    self._logged_mistake = True
                    why = answered.body[:500].decode("utf-8", "replace")
                    _log.error("a settlement was refused, so its estimate stands: %s", why)
                if answered.status < 500:
                    return
            if wait_s is not None:
                await asyncio.sleep(wait_s)
