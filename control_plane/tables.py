"""Every table of the control plane: migrations are held against their metadata."""

import pkgutil
from importlib import import_module

import control_plane
from control_plane.orm import Base

for _module in pkgutil.walk_packages(control_plane.__path__, "control_plane."):
    if _module.name.endswith(".models"):
        import_module(_module.name)

METADATA = Base.metadata
