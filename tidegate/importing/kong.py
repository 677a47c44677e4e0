"""Kong's declarative file: routes become endpoints, consumers clients, and its rate limiting plugins limits.

Of several instances of a plugin Kong runs the one whose targets are closest; so each plan gets, for each route,
the limits of that one. Source: Kong's reference of the declarative format, and "Plugin precedence".
"""

from collections.abc import Mapping
from typing import Any

from tidegate.file.document import FileError
from tidegate.importing.kong_file import PRECEDENCE, SUBJECTS, KongFile, Route
from tidegate.importing.kong_plugins import NAMES, RatePlugin
from tidegate.importing.names import Names
from tidegate.importing.remarks import Remarks
from tidegate.importing.source import Part

DEFAULT, ANONYMOUS = "default", "anonymous"
MOST_LIMITS = 100
"""What a plan takes, and the section ``limits``."""


def imported(source: Part, remarks: Remarks) -> tuple[dict[str, Any], str]:
    """The file's content, and what a reader must know as comments. Raises ``FileError``."""
    kong = KongFile(source, remarks)
    kong.read()
    shared = [plugin for plugin in kong.plugins if plugin.by and not plugin.by_client and not _of_someone(plugin)]
    plans: dict[str, dict[str, Any]] = {}
    limits = _limits([one for one in _effective(kong, {}) if one[0] in shared], by_address=False)
    for name, subject in _plans_wanted(kong).items():
        effective = [one for one in _effective(kong, subject) if one[0] not in shared]
        plans[name] = {"limits": _limits(effective, by_address=False)}
        if name == DEFAULT:
            plans[ANONYMOUS] = {"limits": _limits(effective, by_address=True)}
        elif shared:
            remarks.add("differs", f"plan {name}", "limits that count by no client hold for it as for everybody")
    clients = {kong.client(name): {"plan": _plan_of(kong, name, groups)} for name, groups in kong.consumers.items()}
    content = {"version": 1, "backends": kong.backends, "endpoints": kong.endpoints, "plans": plans, "limits": limits,
               "clients": clients}  # fmt: skip
    return {name: value for name, value in content.items() if value}, _guide()


def _of_someone(plugin: RatePlugin) -> bool:
    return bool(SUBJECTS & plugin.targets.keys())


def _plans_wanted(kong: KongFile) -> Mapping[str, dict[str, str]]:
    """A plan for everybody, and one for each consumer and group that a plugin is put on."""
    plans = {DEFAULT: dict[str, str]()}
    for plugin in kong.plugins:
        consumer, group = plugin.targets.get("consumer"), plugin.targets.get("consumer_group")
        if consumer is not None:
            groups = kong.consumers[consumer][:1]
            subject = {"consumer": consumer} | ({"consumer_group": groups[0]} if groups else {})
            plans[kong.name(f"consumer {consumer}")] = subject
        elif group is not None:
            plans[kong.name(f"group {group}")] = {"consumer_group": group}
    return plans


def _plan_of(kong: KongFile, consumer: str, groups: list[str]) -> str:
    targeted = {(kind, name) for plugin in kong.plugins for kind, name in plugin.targets.items()}
    if ("consumer", consumer) in targeted:
        return kong.name(f"consumer {consumer}")
    group = next((name for name in groups if ("consumer_group", name) in targeted), None)
    return DEFAULT if group is None else kong.name(f"group {group}")


def _effective(kong: KongFile, subject: Mapping[str, str]) -> list[tuple[RatePlugin, list[Route] | None]]:
    """For a subject each plugin that ever runs, with the routes on which it does; ``None``: on every request."""
    placed: dict[tuple[str | None, str | None], list[RatePlugin]] = {}
    for plugin in kong.plugins:
        if all(subject.get(kind) == plugin.targets.get(kind) for kind in SUBJECTS & plugin.targets.keys()):
            placed.setdefault((plugin.targets.get("route"), plugin.targets.get("service")), []).append(plugin)
    found: dict[str, list[Route]] = {}
    for route in kong.routes:
        places = {(route.name, route.service), (route.name, None), (None, route.service), (None, None)}
        for plugin in _closest([one for place in places for one in placed.get(place, [])]):
            found.setdefault(plugin.place, []).append(route)
    elsewhere = {plugin.place for plugin in _closest(placed.get((None, None), []))}
    result: list[tuple[RatePlugin, list[Route] | None]] = []
    for plugin in kong.plugins:
        routes = found.get(plugin.place, [])
        if plugin.place in elsewhere and len(routes) == len(kong.routes):
            result.append((plugin, None))
        elif routes:
            result.append((plugin, routes))
    return result


def _closest(fitting: list[RatePlugin]) -> list[RatePlugin]:
    """Of each of the two plugins the instance that runs."""
    ranked = sorted(fitting, key=lambda one: PRECEDENCE.index(set(one.targets)))
    return [
        next(one for one in ranked if one.kind == kind) for kind in NAMES if any(one.kind == kind for one in ranked)
    ]


def _limits(effective: list[tuple[RatePlugin, list[Route] | None]], *, by_address: bool) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    names = Names()
    for plugin, routes in effective:
        endpoints = None if routes is None else [name for route in routes for name in route.endpoints]
        if not plugin.by or endpoints == []:
            continue
        by = "+".join("ip" if by_address and name == "client" else name for name in plugin.by)
        where = ".".join(plugin.targets.values()) or "all"
        for allowance in plugin.allowances:
            limit = {"limit": allowance.rate, "by": by, "algorithm": allowance.algorithm, **plugin.members}
            if endpoints is not None:
                limit["match"] = {"endpoints": endpoints}
            limits[names.new(f"{where}-{allowance.name}")] = limit
    if len(limits) > MOST_LIMITS:
        raise FileError(f"plugins make {len(limits)} limits for the same requests: a plan takes {MOST_LIMITS}")
    return limits


def _guide() -> str:
    return (
        "# Kong itself asks no node: a plugin of yours does, by POST /v1/check with `client` and `endpoint` as here,\n"
        "# or a gateway before it. Regions count together; with `mode: regional` each counts for itself.\n"
    )
