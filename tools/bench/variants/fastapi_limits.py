"""The library most Python services take: a FastAPI route around `limits`, async, with its sliding or moving window."""

import os
from functools import partial

from fastapi import FastAPI, Response
from limits import RateLimitItemPerHour
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter, SlidingWindowCounterRateLimiter
from pydantic import BaseModel

from tools.bench.place import Place
from tools.bench.variant import Launch, Variant, python_module
from tools.bench.variants.baseline_server import baseline_env, serve
from tools.bench.variants.fastapi_redis import Check
from tools.bench.workload import PLENTY

STRATEGIES = {"sliding": SlidingWindowCounterRateLimiter, "moving": MovingWindowRateLimiter}


class Decision(BaseModel):
    """What one call of the library tells; what is left would be a second one."""

    allowed: bool


def create_app(strategy: str, store_url: str) -> FastAPI:
    """One route around the library."""
    limiter = STRATEGIES[strategy](RedisStorage("async+" + store_url, implementation="redispy"))
    hourly = RateLimitItemPerHour(PLENTY)
    app = FastAPI()

    @app.post("/check")
    async def check(asked: Check, response: Response) -> Decision:
        allowed = await limiter.hit(hourly, asked.api_key, cost=asked.cost)
        response.status_code = 200 if allowed else 429
        response.headers["X-RateLimit-Limit"] = str(PLENTY)
        return Decision(allowed=allowed)

    return app


def _launch(strategy: str, place: Place, port: int) -> Launch:
    env = baseline_env(place, port) | {"BENCH_STRATEGY": strategy}
    return Launch(python_module("tools.bench.variants.fastapi_limits"), port, env)


SLIDING = Variant("limits-sliding", "FastAPI route + `limits`, async, sliding window", partial(_launch, "sliding"))
MOVING = Variant("limits-moving", "FastAPI route + `limits`, async, moving window", partial(_launch, "moving"))

if __name__ == "__main__":
    serve(partial(create_app, os.environ["BENCH_STRATEGY"]))
