"""The pages on which both planes describe their APIs load nothing from elsewhere, and headers hold them to it."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from control_plane.app import create_app as create_control_plane
from control_plane.settings import Settings
from data_plane.http.app import create_app as create_node


def control_plane(directory: Path) -> FastAPI:
    (directory / "signing-key").write_text(bytes(range(32)).hex())
    nowhere = SecretStr("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    return create_control_plane(Settings(database_url=nowhere, signing_key_file=directory / "signing-key"))


def node(_directory: Path) -> FastAPI:
    nothing: Any = None
    operations: Any = SimpleNamespace(draining=False)
    return create_node(nothing, nothing, nothing, nothing, nothing, operations, nothing)


@pytest.fixture(params=[control_plane, node], ids=["control plane", "node"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> FastAPI:
    made: FastAPI = request.param(tmp_path)
    return made


def browser(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api")


async def test_a_page_names_no_other_host_and_all_that_it_names_is_there(app: FastAPI) -> None:
    async with browser(app) as client:
        page = await client.get("/docs")
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "//" not in page.text.replace("<!doctype", "")
        named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(named) >= 3
        for file in named:
            answer = await client.get(f"/{file}")
            assert answer.status_code == 200, file
            assert answer.headers["x-content-type-options"] == "nosniff"
        scripts = [file for file in named if file.endswith(".js")]
        own = (await client.get(f"/{scripts[-1]}")).text
        assert "openapi.json" in own
        assert "http" not in own


async def test_a_page_may_load_from_its_own_origin_only(app: FastAPI) -> None:
    async with browser(app) as client:
        headers = (await client.get("/docs")).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert not re.search(r"https?:|\*", headers["content-security-policy"])
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"


async def test_nothing_else_is_served(app: FastAPI) -> None:
    async with browser(app) as client:
        for path in (
            "/docs/core.py",
            "/docs/../__init__.py",
            "/docs/%2e%2e%2fcore.py",
            "/docs/oauth2-redirect",
            "/redoc",
        ):
            assert (await client.get(path)).status_code == 404, path
