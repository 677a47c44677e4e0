"""The shapes of a webhook."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from control_plane.usage.webhooks.addresses import url_fault
from control_plane.web.fields import Body, ClientName, Name, View


def _sound(url: str) -> str:
    fault = url_fault(url)
    if fault is not None:
        raise ValueError(fault)
    return url


Url = Annotated[
    str,
    StringConstraints(min_length=8, max_length=2_000, pattern=r"^[!-~]+$"),
    AfterValidator(_sound),
    Field(examples=["https://example.com/hooks/usage"]),
]
Threshold = Annotated[float, Field(ge=0.01, le=10)]


def _distinct(values: list[float]) -> list[float]:
    if any(value != round(value * 100) / 100 for value in values):
        raise ValueError("names a threshold that is no whole percent, such as 0.85")
    if len(set(values)) != len(values):
        raise ValueError("names a threshold twice")
    return sorted(values)


class WebhookFields(Body):
    """Where messages go, and about whom."""

    url: Url
    plan: Name | None = None
    """Only clients of this plan."""
    client: ClientName | None = None
    """Only this client."""
    thresholds: Annotated[list[Threshold], Field(min_length=1, max_length=10), AfterValidator(_distinct)] = Field(
        default=[0.8, 1.0]
    )
    enabled: bool = True


class WebhookCreate(WebhookFields):
    """A new webhook."""

    webhook: Name


class WebhookReplace(WebhookFields):
    """A webhook as it shall be; the key of its signatures stays."""

    webhook: Name | None = None


class WebhookView(View):
    """A webhook as it is, without the key of its signatures."""

    webhook: str
    url: str
    plan: str | None
    client: str | None
    thresholds: list[float]
    enabled: bool
    created_at: datetime


class WebhookSecret(View):
    """The key with which messages are signed, shown this once."""

    webhook: str
    secret: str


class WebhookCreated(WebhookView, WebhookSecret):
    """A new webhook, and the key of its signatures, shown this once."""


class DeliveryView(View):
    """One message of a webhook."""

    alert: str
    client: str
    plan: str
    limit: str
    window_start: datetime
    threshold: float
    used: int
    of: int
    created_at: datetime
    attempts: int
    next_attempt_at: datetime | None
    delivered_at: datetime | None
    error: str | None
    """What went wrong the last time."""
