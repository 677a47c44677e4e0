"""What a node says of a denial that it repeats from memory."""

import time
from urllib.parse import urlsplit

from testing.node import key_of, node_client, rule
from testing.proxy import Proxy
from tidegate.contract.config import Client, Plan

CONFIG = [
    Plan(plan="p", limits=(rule(1, "hourly", 1, algorithm="token_bucket"),)), Client(client="acme", plan="p"),
    key_of("acme", "tg_acme"),
]  # fmt: skip
WAY_S = 0.3
SLACK_S = 0.1


async def test_a_repeated_denial_never_promises_an_earlier_end_than_the_store_said(tmp_path, valkey_url):
    port = urlsplit(valkey_url).port
    async with Proxy(port).running() as proxy:
        url = valkey_url.replace(f":{port}", f":{proxy.port}")
        async with node_client(tmp_path, url, CONFIG) as client:

            async def denied_until_s() -> float:
                answer = (await client.post("/v1/check", json={"api_key": "tg_acme"})).json()
                assert (answer["allowed"], answer["degraded"]) == (False, False)
                return time.time() + answer["retry_after_s"]

            async def remembered() -> str:
                lines = (await client.get("/metrics")).text.splitlines()
                return next(line for line in lines if line.startswith("rate_limit_remembered_total"))

            assert (await client.post("/v1/check", json={"api_key": "tg_acme"})).json()["allowed"]
            proxy.delay_s = WAY_S
            await denied_until_s()
            proxy.delay_s = 0.0
            repeated_s = await denied_until_s()
            repeats = 1
            while (await remembered()).endswith(f" {repeats}.0"):  # until the store is asked again
                asked_s = await denied_until_s()
                repeats += 1
            assert repeats > 1
            assert repeated_s > asked_s - SLACK_S
