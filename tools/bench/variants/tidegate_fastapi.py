"""The same node behind its FastAPI routes alone, as under any ASGI server."""

import sys

from tidegate.stack.ports import LOOPBACK
from tools.bench.place import Place
from tools.bench.variant import Launch, Variant
from tools.bench.variants.node_settings import node_env


def _launch(place: Place, port: int) -> Launch:
    command = [
        sys.executable, "-m", "uvicorn", "--factory", "data_plane.main:app_from_environment", "--host", LOOPBACK,
        "--port", str(port), "--loop", "uvloop", "--http", "httptools", "--lifespan", "on", "--no-access-log",
        "--no-server-header", "--log-level", "warning", "--timeout-keep-alive", "75",
    ]  # fmt: skip
    return Launch(list(command), port, node_env(place, port))


VARIANT = Variant(
    "fastapi-handler", "Tidegate, FastAPI routes", _launch, path="/v1/check", batch_path="/v1/check/batch",
    plans=("one", "three"), is_tidegate=True,
)  # fmt: skip
