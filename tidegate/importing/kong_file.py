"""A declarative file of Kong as it stands: routes as endpoints, consumers, and plugins that limit rates."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tidegate.file.document import FileError
from tidegate.importing.kong_plugins import NAMES, RatePlugin, rate_plugin
from tidegate.importing.names import Names
from tidegate.importing.remarks import Remarks
from tidegate.importing.source import Part

PRECEDENCE = (
    {"consumer", "route", "service"}, {"consumer_group", "route", "service"}, {"consumer", "route"},
    {"consumer", "service"}, {"consumer_group", "route"}, {"consumer_group", "service"}, {"route", "service"},
    {"consumer"}, {"consumer_group"}, {"route"}, {"service"}, set[str](),
)  # fmt: skip
LIMITED_BY_OTHERS = {
    "response-ratelimiting",
    "ai-rate-limiting-advanced",
    "graphql-rate-limiting-advanced",
    "service-protection",
}
SECTIONS = ("services", "routes", "consumers", "consumer_groups", "plugins")
SUBJECTS = {"consumer", "consumer_group"}
MOST_ROUTES, MOST_PLUGINS, MOST_CONSUMERS = 1_000, 1_000, 100_000
GROUP = re.compile(r"\((?:\?<(?P<name>\w+)>)?(?:\[\^/\]|\\w|\\d|\.|\[[\w-]+\])[+*]\)")
METHOD = re.compile(r"[A-Z]{1,16}")


class Route(NamedTuple):
    """A route: the endpoints that were made of its paths and methods, and its service."""

    name: str
    service: str | None
    endpoints: tuple[str, ...]


class KongFile:
    """One import: what was read so far."""

    def __init__(self, source: Part, remarks: Remarks) -> None:
        self._source = source
        self._remarks = remarks
        self._names = Names()
        self._clients = Names.of_clients()
        self.plugins: list[RatePlugin] = []
        self.routes: list[Route] = []
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.backends: dict[str, dict[str, Any]] = {}
        self._shapes: dict[str, str] = {}
        self.consumers: dict[str, list[str]] = {}
        self.services: set[str] = set()
        self.groups: set[str] = set()

    def read(self) -> None:
        """Take in the whole source."""
        if not any(name in self._source for name in SECTIONS):
            raise FileError(
                f"{self._source.place}: has none of {', '.join(SECTIONS)}: it is no declarative file of Kong"
            )
        for service in self._source.parts("services"):
            self._service(service)
        for route in self._source.parts("routes"):
            self._route(route, _reference(route, "service"))
        for group in self._source.parts("consumer_groups"):
            self.groups.add(group.needed("name"))
            self._plugins(group, {"consumer_group": group.needed("name")})
        for consumer in self._source.parts("consumers"):
            self._consumer(consumer)
        self._plugins(self._source, {})
        sizes = (len(self.routes), len(self.plugins), len(self.consumers))
        if any(size > most for size, most in zip(sizes, (MOST_ROUTES, MOST_PLUGINS, MOST_CONSUMERS), strict=True)):
            most = f"{MOST_ROUTES} routes, {MOST_PLUGINS} rate limiting plugins or {MOST_CONSUMERS} consumers"
            raise FileError(f"{self._source.place}: has more than {most}")
        self._check_targets()

    def _check_targets(self) -> None:
        known = {
            "service": self.services, "route": {route.name for route in self.routes}, "consumer": self.consumers.keys(),
            "consumer_group": self.groups,
        }  # fmt: skip
        for plugin in self.plugins:
            for kind, name in plugin.targets.items():
                if name not in known[kind]:
                    raise FileError(f"{plugin.place}: there is no {kind.replace('_', ' ')} {name}")

    def client(self, consumer: str) -> str:
        """What a consumer is called here."""
        return self._clients.of(consumer)

    def name(self, text: str) -> str:
        """A name that no other limit or plan has."""
        return self._names.of(text)

    def _service(self, service: Part) -> None:
        name = service.text("name") or service.needed("id")
        self.services.add(name)
        self.backends[self._names.of(f"service {name}")] = {}
        self._plugins(service, {"service": name})
        for route in service.parts("routes"):
            self._route(route, name)

    def _route(self, route: Part, service: str | None) -> None:
        name = route.text("name") or route.text("id") or route.place.rpartition(": ")[2]
        for member in ("hosts", "headers", "snis", "sources", "destinations"):
            if member in route:
                self._remarks.add(
                    "differs", route.place, f"{member}: an endpoint is a method and a path; they are not looked at"
                )
        made = [one for one in self._endpoints_of(route, name, service) if one is not None]
        self.routes.append(Route(name, service, tuple(made)))
        self._plugins(route, {"route": name})

    def _endpoints_of(self, route: Part, name: str, service: str | None) -> Iterator[str | None]:
        methods = [str(item) for item in route.items("methods")] or ["*"]
        for path in [str(item) for item in route.items("paths")] or ["/"]:
            template = _template(path)
            if template is None:
                self._remarks.add(
                    "left out", route.place, f"path {path}: no template says the same; write endpoints for it"
                )
                continue
            if not path.startswith("~"):
                self._remarks.add(
                    "differs", route.place, f"path {path}: all that begins with it in Kong, that path alone here"
                )
            for method in methods:
                if METHOD.fullmatch(method) is None and method != "*":
                    raise FileError(f"{route.place}.methods: {method!r} is no method")
                yield self._endpoint(route, name, f"{method} {template}", service)

    def _endpoint(self, route: Part, name: str, template: str, service: str | None) -> str | None:
        shape = re.sub(r"\{\w+\}", "{}", template)
        if shape in self._shapes:
            text = f"{template}: that is the endpoint {self._shapes[shape]} already; hosts and headers are not compared"
            self._remarks.add("left out", route.place, text)
            return None
        endpoint = self._names.new(name)
        self._shapes[shape] = endpoint
        backend = {} if service is None else {"backend": self._names.of(f"service {service}")}
        self.endpoints[endpoint] = {"route": template, **backend}
        return endpoint

    def _consumer(self, consumer: Part) -> None:
        name = consumer.text("username") or consumer.text("custom_id") or consumer.needed("id")
        groups = [item.needed("name") if isinstance(item, Part) else str(item) for item in _groups(consumer)]
        self.groups.update(groups)
        self.consumers[name] = groups
        keys = sum(len(consumer.items(member)) for member in consumer.value if member.endswith("_credentials"))
        if keys:
            text = "credentials are not part of a file: bring keys in by POST /v1/keys/import"
            self._remarks.add("to do", consumer.place, text)
        self._plugins(consumer, {"consumer": name})

    def _plugins(self, above: Part, targets: dict[str, str]) -> None:
        for plugin in above.parts("plugins"):
            name = plugin.needed("name")
            if name not in NAMES:
                if name in LIMITED_BY_OTHERS:
                    self._remarks.add("left out", plugin.place, f"{name}: only {' and '.join(NAMES)} are imported")
                continue
            if plugin.flag("enabled") is False:
                self._remarks.add("left out", plugin.place, f"{name}: it is not enabled")
                continue
            named = {kind: _reference(plugin, kind) for kind in ("service", "route", "consumer", "consumer_group")}
            given = {kind: value for kind, value in named.items() if value is not None}
            if {**targets, **given}.keys() not in PRECEDENCE:
                raise FileError(f"{plugin.place}: no plugin is put on {' and '.join(sorted({**targets, **given}))}")
            self.plugins.append(rate_plugin(plugin, {**targets, **given}, self._remarks))


def _groups(consumer: Part) -> list[Any]:
    return [Part(f"{consumer.place}.groups[{at}]", item) if isinstance(item, Mapping) else item
            for at, item in enumerate(consumer.items("groups"))]  # fmt: skip


def _reference(part: Part, kind: str) -> str | None:
    """A name, or a mapping with one."""
    found = part.value.get(kind)
    if isinstance(found, Mapping):
        inner = Part(f"{part.place}.{kind}", found)
        return inner.text("name") or inner.text("username") or inner.needed("id")
    return part.text(kind)


def _template(path: str) -> str | None:
    """A path of Kong as a template; ``None`` for a regular expression that says more than segments."""
    from control_plane.routes.schemas import template_fault

    if not path.startswith("~"):
        plain = path.rstrip("/") or "/"
    else:
        numbers = iter(range(1, 100))
        plain = GROUP.sub(lambda match: "{" + (match["name"] or f"p{next(numbers)}") + "}", path[1:].removesuffix("$"))
        plain = plain.replace("\\.", ".").replace("\\-", "-")
        if re.search(r"[\\^$*+?()\[\]|]", plain):
            return None
    return None if template_fault(plain) else plain
