"""OpenAPI's links: what may be asked about that which an answer names. Tools follow them, and stateful fuzzers."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

Paths = Mapping[str, Mapping[str, dict[str, Any]]]
SHOWN_AS = {"limit": "name"}
"""Members that hold what a path calls otherwise: a limit's `limit` is its figure."""
_PARAMETER = re.compile(r"\{(\w+)\}")


def give_links(paths: Paths) -> None:
    """From what POST made, and from what PUT made or replaced. Lists have none: they may be empty."""
    for path, operations in paths.items():
        item = next((other for other in paths if _PARAMETER.fullmatch(other.removeprefix(f"{path}/"))), None)
        if item is not None and "201" in operations.get("post", {}).get("responses", {}):
            _from_what_was_made(operations["post"]["responses"]["201"], paths, item)
        for status in ("200", "201"):
            if "put" in operations and status in operations["put"]["responses"]:
                named = {name: f"$request.path.{name}" for name in _PARAMETER.findall(path)}
                operations["put"]["responses"][status]["links"] = _links(paths, path, named)


def _from_what_was_made(made: dict[str, Any], paths: Paths, item: str) -> None:
    *parents, name = _PARAMETER.findall(item)
    named = {parent: f"$request.path.{parent}" for parent in parents}
    made["links"] = _links(paths, item, {**named, name: f"$response.body#/{SHOWN_AS.get(name, name)}"})


def _links(paths: Paths, item: str, named: Mapping[str, str]) -> dict[str, Any]:
    parameters = {f"path.{name}": expression for name, expression in named.items()}
    return {
        operation["operationId"]: {"operationId": operation["operationId"], "parameters": parameters}
        for operation in _about(paths, item)
    }


def _about(paths: Paths, item: str) -> Iterator[dict[str, Any]]:
    for path, operations in paths.items():
        part = path.startswith(f"{item}/") and len(_PARAMETER.findall(path)) == len(_PARAMETER.findall(item))
        for method, operation in operations.items():
            # a part that PUT makes, as a backend's own factor, is not there before
            if path == item or (part and (method == "put" or "put" not in operations)):
                yield operation
