"""Redis 7.0 from the system's packages, where it is installed."""

import shutil
from pathlib import Path

import pytest


def redis_binary() -> Path:
    """The system's redis-server; skips the test with a clear word where there is none."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("needs redis-server (Debian package redis-server)")
    return Path(found)
