"""The reference pages of the site, made from the code when it is built: the APIs, the commands, settings, metrics."""

import ast
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, get_type_hints

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from control_plane.app import create_app
from control_plane.settings import Settings as ControlPlaneSettings
from data_plane.http.app import create_app as create_node_app
from data_plane.settings import AgentSettings
from data_plane.settings import Settings as NodeSettings
from tidegate import cli

ROOT: Final = Path(__file__).parents[2]
_MADE: Final = "This page is made from the code when the site is built.\n\n"
_KINDS: Final = {
    "counter": "counter", "counter_by": "counter", "_counter": "counter", "_units": "counter",
    "CounterMetricFamily": "counter", "gauge": "gauge", "gauge_by": "gauge", "GaugeMetricFamily": "gauge",
    "watch": "gauge", "info": "gauge", "who": "gauge", "HistogramMetricFamily": "histogram", "_histogram": "histogram",
}  # fmt: skip


class Metric(NamedTuple):
    """A metric as the code names it."""

    name: str
    kind: str
    text: str


def admin_api() -> str:
    """Every operation of the control plane that is not for nodes."""
    return (
        "# The admin API\n\n" + _MADE + _operations(_admin_document(), lambda path: not path.startswith("/internal/"))
    )


def decision_api() -> str:
    """Every operation of a node."""
    return "# The decision API\n\n" + _MADE + _operations(_node_document(), lambda _path: True)


def commands() -> str:
    """Every command with its options."""
    root = typer.main.get_command(cli.app)
    return "# Commands\n\n" + _MADE + "\n".join(_command(root, ["tidegate"]))


def settings() -> str:
    """Every setting of the three processes."""
    parts: list[tuple[str, type[BaseSettings]]] = [
        ("Control plane", ControlPlaneSettings),
        ("Node", NodeSettings),
        ("Agent", AgentSettings),
    ]
    text = "# Settings\n\n" + _MADE + "What they do is told in [operating](../operating.md#node-settings).\n"
    for title, model in parts:
        text += f"\n## {title}\n\n| variable | type | default |\n|---|---|---|\n"
        text += "".join(_settings_of(model))
    return text


def metrics() -> str:
    """Every metric by its name in the code."""
    text = "# Metrics\n\n" + _MADE + "Labels, and what to do about them, are in [metrics](../metrics.md).\n\n"
    text += "| metric | kind | |\n|---|---|---|\n"
    return text + "".join(f"| `{one.name}` | {one.kind} | {one.text} |\n" for one in metrics_in_code())


@cache
def metrics_in_code() -> tuple[Metric, ...]:
    """All calls that make a metric, found in the source: also of those that show only once something happened."""
    found = {}
    for plane in ("control_plane", "data_plane"):
        for file in sorted((ROOT / plane).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                metric = _metric(node, "tidegate_control_plane_" if plane == "control_plane" else "")
                if metric is not None:
                    found[metric.name] = metric
    return tuple(sorted(found.values()))


def _metric(node: ast.AST, prefix: str) -> Metric | None:
    if not isinstance(node, ast.Call) or len(node.args) < 2:
        return None
    kind = _KINDS.get(getattr(node.func, "attr", getattr(node.func, "id", "")))
    match node.args[:2]:
        case [ast.Constant(value=str(name)), ast.Constant(value=str(text))] if kind is not None:
            return Metric(prefix + name + ("_total" if kind == "counter" else ""), kind, text)
    return None


def _settings_of(model: type[BaseSettings]) -> Iterator[str]:
    types = get_type_hints(model)  # without what validates them
    for name, field in model.model_fields.items():
        shown = "" if field.default in (None, "") else f"`{field.default}`"
        if field.default is PydanticUndefined:
            shown = "**required**" if field.is_required() else "by the machine"
        kind = str(types[name]).replace("<class '", "").replace("'>", "").replace("typing.", "")
        kind = kind.replace("pydantic.types.", "").replace("pathlib.", "").replace("|", "or")
        yield f"| `TIDEGATE_{name.upper()}` | {kind} | {shown} |\n"


def _command(command: Any, path: list[str]) -> Iterator[str]:
    """A command and those below it; of whichever click typer brings along."""
    name = " ".join(path)
    context = command.make_context(path[-1], [], resilient_parsing=True)
    if hasattr(command, "list_commands"):
        if len(path) > 1:
            yield f"## `{name}`\n\n{_sentence(command.help)}\n"
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if not found.hidden:
                yield from _command(found, [*path, child])
        return
    yield f"{'##' if len(path) == 2 else '###'} `{name}`\n\n{_sentence(command.help)}\n"
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    if arguments:
        yield f"`{name} {' '.join((one.name or '').upper() for one in arguments)}`\n"
    options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    if options:
        yield "| option | |\n|---|---|"
        for option in options:
            yield f"| `{', '.join(option.opts)}` | {_sentence(option.help)} |"
        yield ""


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|").replace("<", "&lt;")


def _operations(document: Mapping[str, Any], wanted: Callable[[str], bool]) -> str:
    by_tag: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if wanted(path):
                tag = operation.get("tags", ["other"])[0]
                by_tag.setdefault(tag, []).extend(_operation(method, path, operation, document))
    return "\n".join(line for tag, lines in by_tag.items() for line in (f"## {tag.capitalize()}\n", *lines))


def _operation(method: str, path: str, operation: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[str]:
    yield f"### `{method.upper()} {path}`\n"
    yield f"{_sentence(operation.get('description') or operation.get('summary'))}\n"
    rows = [
        (one["name"], one["in"], one.get("required", False), _type(one.get("schema", {})), one.get("description"))
        for one in operation.get("parameters", [])
    ]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    body = _resolved(body, document)
    required = body.get("required", ())
    rows += [
        (name, "body", name in required, _type(schema), schema.get("description"))
        for name, schema in body.get("properties", {}).items()
    ]
    if rows:
        yield "| member | in | type | |\n|---|---|---|---|"
        for name, where, must, kind, text in rows:
            yield f"| `{name}`{' (required)' if must else ''} | {where} | {kind} | {_sentence(text)} |"
        yield ""
    statuses = ", ".join(f"`{status}`" for status in operation["responses"])
    yield f"Answers {statuses}.\n"


def _resolved(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    kind = schema.get("type", "any")
    return kind if isinstance(kind, str) else " or ".join(kind)


@cache
def _admin_document() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        key = Path(directory) / "signing-key"
        key.write_text(Ed25519PrivateKey.generate().private_bytes_raw().hex())
        nowhere = SecretStr("postgresql+asyncpg://nobody@127.0.0.1:1/none")
        return create_app(ControlPlaneSettings(database_url=nowhere, signing_key_file=key)).openapi()


@cache
def _node_document() -> dict[str, Any]:
    """A node's application describes itself without its handlers: none is called."""
    nothing: Any = None
    return create_node_app(nothing, nothing, nothing, nothing, nothing, nothing, nothing).openapi()


PAGES: Final = {
    "reference/admin-api.md": admin_api,
    "reference/decision-api.md": decision_api,
    "reference/commands.md": commands,
    "reference/settings.md": settings,
    "reference/metrics.md": metrics,
}
