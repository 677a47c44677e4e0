"""The baseline: a FastAPI route that counts in Redis by a Lua fixed window, one `EVALSHA` a request."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio
from fastapi import FastAPI, Response
from pydantic import BaseModel

from tools.bench.place import Place
from tools.bench.variant import Launch, Variant, python_module
from tools.bench.variants.baseline_server import baseline_env, serve
from tools.bench.workload import HOUR_US, PLENTY

WINDOW_S = HOUR_US // 1_000_000

FIXED_WINDOW = """
-- KEYS[1] counter; ARGV[1] limit, ARGV[2] window_s, ARGV[3] cost; returns {allowed, remaining, reset_s}
local used = tonumber(redis.call('GET', KEYS[1]) or '0')
local limit, cost = tonumber(ARGV[1]), tonumber(ARGV[3])
local ttl = redis.call('TTL', KEYS[1])
if ttl < 0 then
  ttl = tonumber(ARGV[2])
end
if used + cost > limit then
  return {0, limit - used, ttl}
end
redis.call('SET', KEYS[1], used + cost, 'EX', ttl)
return {1, limit - used - cost, ttl}
"""


class Check(BaseModel):
    """The same request body as for Tidegate."""

    api_key: str
    ip: str
    method: str
    path: str
    cost: int = 1


class Decision(BaseModel):
    """A small answer."""

    allowed: bool
    limit: int
    remaining: int
    reset_after_s: int


def create_app(store_url: str) -> FastAPI:
    """One route, one client of the store with its pool, one script."""
    client = redis.asyncio.Redis.from_url(store_url)
    take = client.register_script(FIXED_WINDOW)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with client:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/check")
    async def check(asked: Check, response: Response) -> Decision:
        allowed, remaining, reset_s = await take(keys=[f"rl:{asked.api_key}"], args=[PLENTY, WINDOW_S, asked.cost])
        response.status_code = 200 if allowed else 429
        response.headers["X-RateLimit-Limit"] = str(PLENTY)
        response.headers["X-RateLimit-Remaining"] = str(remaining)
        response.headers["X-RateLimit-Reset"] = str(reset_s)
        return Decision(allowed=bool(allowed), limit=PLENTY, remaining=remaining, reset_after_s=reset_s)

    return app


def _launch(place: Place, port: int) -> Launch:
    return Launch(python_module("tools.bench.variants.fastapi_redis"), port, baseline_env(place, port))


VARIANT = Variant("fastapi-redis", "FastAPI route + redis-py, one `EVALSHA` a request (the baseline)", _launch)

if __name__ == "__main__":
    serve(create_app)
