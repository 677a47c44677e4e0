"""The OpenAPI document says something of every operation, and its examples are accepted."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel, SecretStr, TypeAdapter, ValidationError

from control_plane.adaptive.schemas import PolicyCreate
from control_plane.app import create_app
from control_plane.settings import Settings


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    key: Path = tmp_path_factory.mktemp("keys") / "signing-key"
    key.write_text(bytes(range(32)).hex())
    return create_app(
        Settings(database_url=SecretStr("postgresql+asyncpg://nobody@127.0.0.1:1/none"), signing_key_file=key)
    )


def routes_of(routes: Iterable[Any]) -> Iterator[APIRoute]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        elif hasattr(route, "original_router"):
            yield from routes_of(route.original_router.routes)


def operations(app: FastAPI) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_operation_has_summary_description_and_answers(app: FastAPI) -> None:
    found = operations(app)
    assert len(found) > 80
    for name, operation in found:
        assert operation.get("summary"), name
        assert operation.get("description"), name
        assert any(status.startswith("2") for status in operation["responses"]), name
        if "/v1/" in name:
            assert {"401", "403", "429", "503"} <= set(operation["responses"]), name


def test_every_body_has_an_example(app: FastAPI) -> None:
    for name, operation in operations(app):
        bodies = [operation.get("requestBody", {})]
        bodies += [body for status, body in operation["responses"].items() if status.startswith("2")]
        for body in bodies:
            for media in body.get("content", {}).values():
                assert "example" in media or "examples" in media, name


def test_what_is_shown_as_a_request_is_accepted(app: FastAPI) -> None:
    tried = 0
    for route in routes_of(app.routes):
        if route.body_field is None:
            continue
        (method,) = route.methods - {"HEAD"}
        media = app.openapi()["paths"][route.path][method.lower()]["requestBody"]["content"]["application/json"]
        model: type[BaseModel] = route.body_field.field_info.annotation  # type: ignore[assignment]  # FastAPI's own
        TypeAdapter(model).validate_json(json.dumps(media["example"]))
        tried += 1
    assert tried > 20


def test_what_names_may_be_is_said_and_no_other_is_taken(app: FastAPI) -> None:
    schemas = app.openapi()["components"]["schemas"]
    for name, field in (("MatchFields", "attributes"), ("ClientEntry", "overrides"), ("PlanEntry", "limits")):
        assert schemas[name]["properties"][field]["additionalProperties"] is False, (name, field)
    assert schemas["QuotaReplace"]["properties"]["shares"]["anyOf"][0]["additionalProperties"] is False


def test_links_lead_from_what_was_made_by_members_that_it_has(app: FastAPI) -> None:
    schemas = app.openapi()["components"]["schemas"]
    ids = {operation["operationId"] for _, operation in operations(app)}
    leading = 0
    for name, operation in operations(app):
        for response in operation["responses"].values():
            for link in response.get("links", {}).values():
                assert link["operationId"] in ids, name
                leading += 1
                for expression in link["parameters"].values():
                    if not expression.startswith("$request.path."):
                        shown = response["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
                        member = expression.removeprefix("$response.body#/")
                        assert schemas[shown]["properties"][member]["type"] == "string", (name, expression)
    assert leading > 100
    made = app.openapi()["paths"]["/v1/backends"]["post"]["responses"]["201"]["links"]
    assert "put_manual_factor_v1_backends__backend__factor_put" in made
    assert "get_manual_factor_v1_backends__backend__factor_get" not in made, "there is none yet"


def test_nothing_at_all_will_do_for_a_named_thing_without_required_members(app: FastAPI) -> None:
    schemas = app.openapi()["components"]["schemas"]
    for name in ("RegionEntry", "PlanEntry"):
        assert schemas[name]["type"] == ["object", "null"]
    assert schemas["EndpointEntry"]["type"] == "object"


def test_a_whole_number_may_have_a_fraction_of_zero() -> None:
    assert PolicyCreate.model_validate({"policy": "p", "cut_after": 3.0, "signals": {"cpu": 2}}).cut_after == 3
    for wrong in (3.5, "3", True):
        with pytest.raises(ValidationError):
            PolicyCreate.model_validate({"policy": "p", "cut_after": wrong})
