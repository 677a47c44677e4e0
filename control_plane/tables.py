"""Every table, gathered so that migrations can be held against them."""

from control_plane.access import models as _access
from control_plane.clients import models as _clients
from control_plane.limits import models as _limits
from control_plane.orm import Base
from control_plane.plans import models as _plans
from control_plane.regions import models as _regions
from control_plane.rollout import models as _rollout
from control_plane.routes import models as _routes

MODELS = (_access, _clients, _limits, _plans, _regions, _rollout, _routes)
METADATA = Base.metadata
