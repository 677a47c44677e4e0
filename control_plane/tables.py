"""Every table, gathered so that migrations can be held against them."""

from control_plane import schema_version as _schema_version
from control_plane.adaptive import models as _adaptive
from control_plane.audit import models as _audit
from control_plane.blocks import models as _blocks
from control_plane.canary import models as _canary
from control_plane.clients import models as _clients
from control_plane.console import models as _console
from control_plane.credentials.reporters import models as _reporters
from control_plane.credentials.tokens import models as _tokens
from control_plane.enforcement import models as _enforcement
from control_plane.jobs import models as _jobs
from control_plane.limits import models as _limits
from control_plane.nodes import models as _nodes
from control_plane.orm import Base
from control_plane.plans import models as _plans
from control_plane.publishing import models as _publishing
from control_plane.quotas import models as _quotas
from control_plane.regions import models as _regions
from control_plane.replays import models as _replays
from control_plane.routes import models as _routes
from control_plane.usage import models as _usage

MODELS = (
    _tokens,
    _adaptive,
    _audit,
    _clients,
    _console,
    _jobs,
    _limits,
    _plans,
    _quotas,
    _regions,
    _replays,
    _reporters,
    _canary,
    _publishing,
    _nodes,
    _schema_version,
    _routes,
    _blocks,
    _enforcement,
    _usage,
)
METADATA = Base.metadata
