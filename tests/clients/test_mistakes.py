"""What an application gets wrong is logged and follows the fail policy; what an end user sends wrong is refused."""

import logging

import httpx
import pytest
from fastapi import FastAPI
from flask import Flask

from tests.clients.conftest import config
from tidegate_client import AsyncTidegate, Options, Tidegate
from tidegate_client.asgi import rate_limit
from tidegate_client.wsgi import rate_limit as flask_rate_limit

KEY = {"X-API-Key": "tg_acme"}


@pytest.mark.parametrize(("policy", "status"), [("open", 200), ("closed", 503)])
async def test_an_endpoint_that_is_none_follows_the_fail_policy(start_node, caplog, policy: str, status: int) -> None:
    node = start_node(config(5))
    app = FastAPI()
    async with AsyncTidegate(Options(urls=[node.url], timeout_s=10, on_failure=policy)) as limiter:

        @app.get("/typo")
        @rate_limit(limiter, endpoint="typo")
        async def typo() -> str:
            return "served"

        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            with caplog.at_level(logging.ERROR, "tidegate_client"):
                answers = [await client.get("/typo", headers=KEY) for _ in range(3)]
            assert [answer.status_code for answer in answers] == [status] * 3
            assert (await client.get("/typo", headers={"X-API-Key": "k" * 300})).status_code == 401
    (line,) = [record.getMessage() for record in caplog.records if record.name == "tidegate_client"]
    assert "endpoint 'typo' is not configured" in line


def test_so_it_is_in_flask(start_node, caplog) -> None:
    node = start_node(config(5))
    app = Flask("app")
    with Tidegate(Options(urls=[node.url], timeout_s=10, on_failure="open")) as limiter:

        @app.get("/typo")
        @flask_rate_limit(limiter, endpoint="typo")
        def typo() -> str:
            return "served"

        answers = [app.test_client().get("/typo", headers=KEY) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert sum("'typo'" in record.getMessage() for record in caplog.records) == 1
