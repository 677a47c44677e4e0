"""How the baselines are served: uvicorn at its fastest, one worker, no access log."""

import os
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from tidegate.stack.ports import LOOPBACK
from tools.bench.place import Place


def baseline_env(place: Place, port: int) -> dict[str, str]:
    """Port and store; the store's URL holds its password, so it is not in a command line."""
    return {"BENCH_PORT": str(port), "BENCH_STORE_URL": place.store.url}


def serve(create_app: Callable[[str], FastAPI]) -> None:
    """Serve the app that is made for the store's URL."""
    uvicorn.run(
        lambda: create_app(os.environ["BENCH_STORE_URL"]), factory=True, host=LOOPBACK,
        port=int(os.environ["BENCH_PORT"]), loop="uvloop", http="httptools", access_log=False, log_level="warning",
        timeout_keep_alive=75,
    )  # fmt: skip
