"""All routers of usage, for ``app``."""

from control_plane.usage.denial_endpoints import router as denials
from control_plane.usage.endpoints import router as reading
from control_plane.usage.exchange_endpoints import router as exchange
from control_plane.usage.node_endpoints import router as of_nodes
from control_plane.usage.plan_endpoints import router as against_limits
from control_plane.usage.webhooks.endpoints import router as webhooks

USAGE_ROUTERS = (reading, denials, exchange, against_limits, webhooks, of_nodes)
