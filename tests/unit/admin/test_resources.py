"""The table of resources says what the admin API has, and runbooks name only commands of the table."""

import re
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import SecretStr

from control_plane.app import create_app
from control_plane.settings import Settings
from control_plane.usage.denial_reasons import remedy
from tidegate.admin.completion import SOURCES
from tidegate.admin.resources import RESOURCES
from tidegate.admin.shapes import Verb, filled, parameters
from tidegate.contract.decision import CallerCause, Cause, LimitCause
from tidegate.contract.denials import Denial

DOCS = Path(__file__).parents[3] / "docs"
METHODS = {"list": "get", "show": "get", "post": "post", "delete": "delete"}
VERBS = [pytest.param(verb, id=f"{resource.name} {verb.name}") for resource in RESOURCES for verb in resource.verbs]


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    key = tmp_path_factory.mktemp("keys") / "signing-key"
    key.write_text(bytes(range(32)).hex())
    nowhere = SecretStr("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    return create_app(Settings(database_url=nowhere, signing_key_file=key)).openapi()


def resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """The schema without reference and without the alternative ``null``."""
    for one in schema.get("anyOf", []):
        if one.get("type") != "null":
            schema = one
    if "$ref" in schema:
        return resolved(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document)
    return schema


def operations(verb: Verb, document: dict[str, Any]) -> list[dict[str, Any]]:
    """What the verb asks of the API: one operation for each way to leave names out."""
    method = METHODS.get(verb.action, "put")
    by_shape = {re.sub(r"\{\w+\}", "x", path): found for path, found in document["paths"].items()}
    choices = [("x", None) if optional else ("x",) for optional in parameters(verb.path).values()]
    found = []
    for values in product(*choices):
        given = dict(zip(parameters(verb.path), values, strict=True))
        if given.get("plan") and "limit" in given and given["limit"] is None:
            continue  # refused before anything is sent
        found.append(by_shape[filled(verb.path, given)][method])
    return found


def members(verb: Verb, operation: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """By name the schemas of what the operation takes: of its query, or of its body."""
    taken = {one["name"]: one["schema"] for one in operation.get("parameters", []) if one["in"] == "query"}
    if verb.writes and "requestBody" in operation:
        body = resolved(operation["requestBody"]["content"]["application/json"]["schema"], document)
        taken |= body["properties"]
        for name, schema in body["properties"].items():
            inner = resolved(schema, document).get("properties", {})
            taken |= {f"{name}.{one}": schema for one, schema in inner.items()}
    return {name: resolved(schema, document) for name, schema in taken.items()}


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_is_an_operation_that_takes_its_options(verb: Verb, document: dict[str, Any]) -> None:
    for operation in operations(verb, document):
        taken = members(verb, operation, document)
        assert verb.action != "list" or ("limit" in taken) is not verb.whole
        for field in verb.fields:
            assert field.member in taken, field
            schema = taken[field.member]
            assert set(field.choices) <= set(schema.get("enum", field.choices)), field
            if "enum" in schema:
                assert field.choices, f"{field.member} has choices: {schema['enum']}"
            expected = {"int": "integer", "float": "number", "bool": "boolean", "list": "array", "pairs": "object"}
            assert schema["type"] == expected.get(field.kind, "string"), field


def test_what_a_change_does_not_name_stays(document: dict[str, Any]) -> None:
    """A PUT replaces: a member that the table lacks would go back to its default."""
    for resource in RESOURCES:
        for verb in resource.verbs:
            if verb.action == "set":
                (operation, *_) = operations(verb, document)
                top = {name for name in members(verb, operation, document) if "." not in name}
                named = {field.member.partition(".")[0] for field in verb.fields}
                # its own name, what is kept besides, and what only an admin sets
                besides = {*parameters(verb.path), "name", "limits", "credential"} - named
                assert top - besides == named, (resource.name, verb.name)


def test_names_are_completed_where_the_api_lists_them(document: dict[str, Any]) -> None:
    for name, source in SOURCES.items():
        listing = Verb("list", "", "list", source.path)
        for operation in operations(listing, document):
            assert {*source.parameters} <= members(listing, operation, document).keys(), name
            schema = resolved(operation["responses"]["200"]["content"]["application/json"]["schema"], document)
            assert source.member in resolved(schema["properties"]["items"]["items"], document)["properties"], name


def commands_in(text: str) -> list[list[str]]:
    return [line.split() for line in re.findall(r"`tidegate ([^`]+)`", text)]


def test_runbooks_need_no_curl_and_name_commands_that_exist() -> None:
    used = 0
    for page in (DOCS / "runbooks").glob("*.md"):
        text = page.read_text()
        assert "curl" not in text, page
        assert not re.search(r"`(GET|PUT|POST|DELETE) /v1/(?!load)", text), page
        used += sum(exists(words) for words in commands_in(text))
    assert used > 10


def exists(command: list[str]) -> bool:
    """Whether it is one of these commands; then it and its options must be there."""
    verbs = {resource.name: {verb.name: verb for verb in resource.verbs} for resource in RESOURCES}.get(command[0])
    if verbs is None:
        return False
    verb = verbs[command[1]]
    options = {field.flag for field in verb.fields} | {f"--{one}" for one in parameters(verb.path)}
    options |= {"--reason", "--immediate", "--wait-s", "--json", "--rows"}
    assert {word for word in command if word.startswith("--")} <= options, command
    return True


@pytest.mark.parametrize("cause", [*get_args(LimitCause), *get_args(CallerCause)])
@pytest.mark.parametrize("client", ["acme", None])
def test_what_can_be_done_about_a_denial_names_commands_that_exist(cause: Cause, client: str | None) -> None:
    words = remedy(Denial(at_ms=0, node="n", cause=cause, revision=1, client=client, policy="hourly"))
    assert "/v1/" not in words
    assert all(exists(command.split()) for command in re.findall(r"\(tidegate ([^)]+)\)", words))


def test_options_of_a_command_differ() -> None:
    for resource in RESOURCES:
        for verb in resource.verbs:
            flags = [field.flag for field in verb.fields]
            flags += [f"--{name}" for name, optional in parameters(verb.path).items() if optional]
            flags += ["--url", "--token-file", "--rows", "--wait-s", "--reason", "--immediate", "--unset", "--json"]
            assert len(flags) == len(set(flags)), (resource.name, verb.name, flags)
