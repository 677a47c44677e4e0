"""Tidegate's client for Python: ask whether a request may pass.

``AsyncTidegate`` and ``Tidegate`` are the same client for asyncio and for threads; ``tidegate_client.asgi`` and
``tidegate_client.wsgi`` put it in front of an application.
"""

from tidegate_client.asynchronous import AsyncTidegate
from tidegate_client.messages import Check, Decision, InvalidCheckError
from tidegate_client.options import FailPolicy, Options, UnavailableError
from tidegate_client.reservations import Reservation
from tidegate_client.synchronous import Tidegate

__all__ = [
    "AsyncTidegate",
    "Check",
    "Decision",
    "FailPolicy",
    "InvalidCheckError",
    "Options",
    "Reservation",
    "Tidegate",
    "UnavailableError",
]
