"""Access: who can do what?"""

import asyncio
from typing import Any

from starlette.responses import Response

from control_plane.console.api import segment
from control_plane.console.visit import Visit

DELIVERIES = 5


async def page(visit: Visit) -> Response:
    """Tokens with their roles and last use (for admins), webhooks with their deliveries."""
    admin = visit.may("admin")
    webhooks, regions, reporters = await asyncio.gather(
        visit.api.read("/v1/usage-webhooks", limit=50),
        visit.api.read("/v1/regions", limit=1000),
        visit.api.read("/v1/reporters", limit=100),
    )
    tokens = (await visit.api.read("/v1/tokens", limit=1000))["items"] if admin else None
    return visit.page(
        "access.html",
        tokens=tokens,
        webhooks=await asyncio.gather(*(_with_deliveries(visit, one) for one in webhooks["items"])),
        regions=regions["items"],
        reporters=reporters["items"],
    )


async def _with_deliveries(visit: Visit, webhook: dict[str, Any]) -> dict[str, Any]:
    found = await visit.api.read(f"/v1/usage-webhooks/{segment(webhook['webhook'])}/deliveries", limit=DELIVERIES)
    return {**webhook, "deliveries": found["items"]}
