"""``/v1/usage-webhooks``."""

import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from control_plane.access.principals import by_method
from control_plane.database import Reading
from control_plane.orm import equal
from control_plane.publishing.writer import Changing, Creating
from control_plane.resources import same_name
from control_plane.usage.models import UsageAlert, UsageWebhookRow
from control_plane.usage.webhooks import repository
from control_plane.usage.webhooks.schemas import (
    DeliveryView,
    WebhookCreate,
    WebhookCreated,
    WebhookReplace,
    WebhookSecret,
    WebhookView,
)
from control_plane.usage.webhooks.service import WebhookKeys, Webhooks, delivery_view
from control_plane.web.etags import json_with_etag
from control_plane.web.fields import ClientName, Name
from control_plane.web.pages import Listing, Page, Prefix, sorted_by

router = APIRouter(prefix="/v1/usage-webhooks", tags=["usage"], dependencies=[Depends(by_method)])
_webhooks = Webhooks()


def _new_salt() -> str:
    return secrets.token_hex(16)


@router.get("")
async def list_webhooks(
    session: Reading,
    page: Annotated[Page, sorted_by("webhook", "created_at")],
    prefix: Prefix = None,
    plan: Name | None = None,
    client: ClientName | None = None,
    enabled: bool | None = None,
) -> Listing[WebhookView]:
    """Webhooks, all or those of a plan or a client."""
    where = equal((UsageWebhookRow.plan, plan), (UsageWebhookRow.client, client), (UsageWebhookRow.enabled, enabled))
    return await _webhooks.list_page(session, page, prefix=prefix, where=where)


@router.post("", status_code=201, response_model=WebhookCreated)
async def create_webhook(body: WebhookCreate, change: Creating, request: Request) -> Response:
    """Add a URL that gets a message when clients reach a part of a limit. The key of the signatures is shown this
    once.
    """
    keys: WebhookKeys = request.state.webhook_keys
    salt = _new_salt()
    async with change.begin() as write:
        view = await Webhooks(salt).create(write, body.webhook, body)
    made = WebhookCreated(**view.model_dump(), secret=keys.secret(body.webhook, salt))
    return await change.answer(made, 201, location=f"/v1/usage-webhooks/{body.webhook}", secret=True)


@router.get("/{webhook}", response_model=WebhookView)
async def get_webhook(webhook: Name, session: Reading) -> Response:
    """One webhook."""
    return json_with_etag(await _webhooks.get(session, webhook))


@router.put("/{webhook}", response_model=WebhookView, responses={201: {"model": WebhookView}})
async def put_webhook(webhook: Name, body: WebhookReplace, change: Changing) -> Response:
    """Add or replace a webhook. One that is added here gets its key from `POST .../secret`."""
    same_name(webhook, body.webhook, "webhook")
    async with change.begin() as write:
        view, made = await Webhooks(_new_salt()).replace(write, webhook, body, change.preconditions)
    return await change.answer(view, 201 if made else 200)


@router.delete("/{webhook}", status_code=204)
async def delete_webhook(webhook: Name, change: Changing) -> Response:
    """Remove a webhook; what it has not delivered is gone."""
    async with change.begin() as write:
        await _webhooks.delete(write, webhook, change.preconditions)
    return await change.answer(None, 204)


@router.post("/{webhook}/secret", status_code=201, response_model=WebhookSecret)
async def new_webhook_secret(webhook: Name, change: Changing, request: Request) -> Response:
    """Sign with a new key from now on; it is in this answer and never again."""
    keys: WebhookKeys = request.state.webhook_keys
    async with change.begin() as write:
        row = await _webhooks.row(write.session, webhook)
        shown_as = _webhooks.view(row)
        change.preconditions.check(shown_as)
        salt = row.salt = _new_salt()
        write.record(_webhooks.noun, webhook, shown_as, shown_as, "rotate")
    made = WebhookSecret(webhook=webhook, secret=keys.secret(webhook, salt))
    return await change.answer(made, 201, secret=True)


@router.get("/{webhook}/deliveries")
async def list_deliveries(
    webhook: Name,
    session: Reading,
    page: Annotated[Page, sorted_by("alert", "created_at")],
    client: ClientName | None = None,
    delivered: bool | None = None,
) -> Listing[DeliveryView]:
    """What was sent, or is to be sent again, all or of one client."""
    await _webhooks.row(session, webhook)
    where = equal((UsageAlert.client, client))
    if delivered is not None:
        where.append(UsageAlert.delivered_at.is_not(None) if delivered else UsageAlert.delivered_at.is_(None))
    return await repository.messages_of(webhook).listing(session, page, delivery_view, where=where)
