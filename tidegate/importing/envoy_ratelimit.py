"""envoyproxy/ratelimit: descriptors become limits outside plans, by the attributes that their entries are mapped to.

Envoy looks a descriptor up by exactly its entries. A limit here applies wherever its attributes match.
So where descriptors have several shapes, each limit wants an attribute that names its shape, and Envoy must send it.
Source: the README of envoyproxy/ratelimit, "The configuration format".
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tidegate.file.document import FileError
from tidegate.importing.names import Names
from tidegate.importing.remarks import Remarks
from tidegate.importing.source import Part

WINDOWS = {
    "second": ("s", 1), "minute": ("min", 60), "hour": ("h", 3_600), "day": ("day", 86_400), "week": ("week", 604_800),
    "month": ("30day", 30 * 86_400), "year": ("365day", 365 * 86_400),
}  # fmt: skip
ADDRESS = "remote_address"
SHAPE = "rls_shape"
MOST_DEPTH = 16
MOST_DESCRIPTORS = 10_000
MOST_LIMITS = 100
"""What the file's section ``limits`` takes."""
NO_COUNTERPART = {
    "replaces": "there is no replacing one limit by another: both count",
    "detailed_metric": "metrics have no label for values of attributes; usage reports and the denial log name subjects",
    "value_to_metric": "metrics have no label for values of attributes",
    "share_threshold": "each value counts for itself",
    "quota_mode": "a limit counts and denies, or is in shadow",
    "metadata": "nothing is kept with a limit",
}


class Entry(NamedTuple):
    """A key, with a value or for every value."""

    key: str
    value: str | None


class Rule(NamedTuple):
    """A rate limit and the path of entries that leads to it. ``per_window`` is ``None`` for unlimited."""

    domain: str
    path: tuple[Entry, ...]
    place: str
    per_window: int | None
    unit: str
    shadow: bool
    name: str | None

    @property
    def keys(self) -> tuple[str, ...]:
        """Its entries' keys, from the outermost."""
        return tuple(entry.key for entry in self.path)

    @property
    def shape(self) -> str:
        """What descriptors with these entries have in common; short enough for the value of an attribute."""
        whole = ".".join((self.domain, *self.keys))
        return whole if _fits(whole) else hashlib.sha256(whole.encode()).hexdigest()[:16]

    @property
    def rate(self) -> float:
        """Requests a second."""
        return 0 if self.per_window is None else self.per_window / WINDOWS[self.unit][1]


def imported(sources: Sequence[Part], remarks: Remarks) -> tuple[dict[str, Any], str]:
    """The file's content, and what a reader must know and do as comments. Raises ``FileError``."""
    rules = [rule for source in sources for rule in _rules_of(source, remarks)]
    if len(rules) > MOST_DESCRIPTORS:
        raise FileError(f"more than {MOST_DESCRIPTORS} descriptors")
    usable = [rule for rule in rules if _is_usable(rule, rules, remarks)]
    if len(usable) > MOST_LIMITS:
        raise FileError(f"{len(usable)} descriptors have limits: a file takes {MOST_LIMITS} limits outside plans")
    several = len({rule.shape for rule in usable}) > 1
    attributes, names = Names.of_attributes(), Names()
    attributes.of(SHAPE)
    limits = {names.new(_name(rule)): _limit(rule, attributes, several=several) for rule in usable}
    for rule in usable:
        _compare(rule, usable, remarks)
    shapes = sorted({rule.shape for rule in usable}) if several else []
    mapping = _mapping(rules, attributes, several=several)
    return {"version": 1, "limits": limits}, _guide(mapping, shapes)


def _rules_of(source: Part, remarks: Remarks) -> Iterator[Rule]:
    domain = source.needed("domain")
    yield from _below(source, domain, (), remarks)


def _below(above: Part, domain: str, path: tuple[Entry, ...], remarks: Remarks) -> Iterator[Rule]:
    if len(path) >= MOST_DEPTH:
        raise FileError(f"{above.place}: descriptors are nested more than {MOST_DEPTH} deep")
    seen: set[Entry] = set()
    for part in above.parts("descriptors"):
        entry = Entry(part.needed("key"), part.text("value") or None)
        if entry in seen:
            raise FileError(f"{part.place}: {_said((entry,))} stands here twice")
        seen.add(entry)
        here = (*path, entry)
        place = f"{domain}: {_said(here)}"
        for member, why in NO_COUNTERPART.items():
            if member in part and part.value[member] is not False:
                remarks.add("left out", place, f"{member}: {why}")
        limit = part.part("rate_limit")
        if "rate_limit" in part or not part.items("descriptors"):
            yield _rule(part, limit, domain, here, place, remarks)
        yield from _below(part, domain, here, remarks)


def _rule(part: Part, limit: Part, domain: str, path: tuple[Entry, ...], place: str, remarks: Remarks) -> Rule:
    if "replaces" in limit:
        remarks.add("left out", place, f"replaces: {NO_COUNTERPART['replaces']}")
    shadow, name = part.flag("shadow_mode") or False, limit.text("name")
    if "rate_limit" not in part or limit.flag("unlimited"):
        return Rule(domain, path, place, None, "second", shadow, name)
    unit, units = limit.needed("unit").lower(), limit.value.get("requests_per_unit")
    if unit not in WINDOWS:
        raise FileError(f"{limit.place}.unit: {unit!r} is none of {', '.join(WINDOWS)}")
    if not isinstance(units, int) or isinstance(units, bool) or not 0 <= units < 2**32:
        raise FileError(f"{limit.place}.requests_per_unit: must be a whole number from 0 to {2**32 - 1}")
    return Rule(domain, path, place, units, unit, shadow, name)


def _is_usable(rule: Rule, rules: Sequence[Rule], remarks: Remarks) -> bool:
    """Whether a limit can express it; else a remark gives the reason."""
    if rule.per_window is None:
        if _defaults(rule, rules):
            text = "unlimited: no value is excepted from the limit on its key alone, which counts it too"
            remarks.add("left out", rule.place, text)
        return False  # without a default nothing limits it here either
    valued = next((entry for entry in rule.path if entry.key == ADDRESS and entry.value is not None), None)
    if valued is not None:
        how = "block it instead (docs/usage.md)" if rule.per_window == 0 else "a limit matches no address"
        remarks.add("left out", rule.place, f"one address: {how}")
        return False
    starred = next((entry for entry in rule.path if entry.value is not None and entry.value.endswith("*")), None)
    if starred is not None:
        remarks.add("left out", rule.place, f"{starred.value}: a limit matches whole values; write one for each value")
        return False
    unfit = next((entry for entry in rule.path if entry.value is not None and not _fits(entry.value)), None)
    if unfit is not None:
        remarks.add("left out", rule.place, "a value to match has 1 to 128 printable characters")
        return False
    if len(set(rule.keys)) != len(rule.keys):
        remarks.add("left out", rule.place, "a key comes twice: a check has one value for each")
        return False
    return True


def _fits(value: str) -> bool:
    return len(value) <= 128 and value.isprintable()


def _defaults(rule: Rule, rules: Sequence[Rule]) -> list[Rule]:
    """Rules of the same shape that hold for every value where this one names it."""
    alike = [other for other in rules if other is not rule and (other.domain, other.keys) == (rule.domain, rule.keys)]
    return [
        other
        for other in alike
        if other.per_window is not None
        and all(theirs.value in {None, ours.value} for theirs, ours in zip(other.path, rule.path, strict=True))
    ]


def _compare(rule: Rule, rules: Sequence[Rule], remarks: Remarks) -> None:
    """In Envoy the most specific descriptor counts alone; here all that match do."""
    for default in _defaults(rule, rules):
        if default.rate < rule.rate or default.unit != rule.unit:
            text = f"counts beside {_said(default.path)}, which in Envoy it stands in for: the smaller of both holds"
            remarks.add("differs", rule.place, text)


def _name(rule: Rule) -> str:
    parts = (entry.key if entry.value is None else f"{entry.key}-{entry.value}" for entry in rule.path)
    return rule.name or ".".join(parts)


def _limit(rule: Rule, attributes: Names, *, several: bool) -> dict[str, Any]:
    matched = {attributes.of(entry.key): entry.value for entry in rule.path if entry.value is not None}
    if several:
        matched = {SHAPE: rule.shape, **matched}
    by = [_dimension(key, attributes) for key in rule.keys]
    limit: dict[str, Any] = {
        "limit": f"{rule.per_window}/{WINDOWS[rule.unit][0]}",
        "by": "+".join(by),
        "algorithm": "fixed_window",
    }
    if matched:
        limit["match"] = {"attributes": matched}
    if rule.shadow:
        limit["shadow"] = True
    return limit


def _dimension(key: str, attributes: Names) -> str:
    return "ip" if key == ADDRESS else f"attribute:{attributes.of(key)}"


def _mapping(rules: Sequence[Rule], attributes: Names, *, several: bool) -> Mapping[str, Mapping[str, str]]:
    """What TIDEGATE_RLS_MAPPING_FILE has to say, by domain."""
    domains: dict[str, dict[str, str]] = {}
    for rule in rules:
        entries = domains.setdefault(rule.domain, {})
        entries.update((key, _dimension(key, attributes)) for key in rule.keys)
        if several:
            entries[SHAPE] = f"attribute:{SHAPE}"
    return domains


def _guide(mapping: Mapping[str, Mapping[str, str]], shapes: Sequence[str]) -> str:
    lines = ["Nodes need TIDEGATE_RLS_PORT, and in the file that TIDEGATE_RLS_MAPPING_FILE names:"]
    for domain, entries in mapping.items():
        lines += ["", f"  [domains.{_quoted(domain)}]"]
        lines += [f"  {_quoted(key)} = {_quoted(meaning)}" for key, meaning in entries.items()]
    if shapes:
        lines += [
            "",
            "Envoy must say which entries a descriptor has, by one more action, the last, in each of rate_limits:",
        ]
        lines += [
            f"  - generic_key: {{ descriptor_key: {SHAPE}, descriptor_value: {_quoted(shape)} }}" for shape in shapes
        ]
    lines += ["", "Regions count together; with `mode: regional` each counts for itself, as with a Redis of its own."]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def _quoted(text: str) -> str:
    escaped = "".join(character if character.isprintable() else "?" for character in text)
    return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _said(path: Sequence[Entry]) -> str:
    return " > ".join(entry.key if entry.value is None else f"{entry.key}={entry.value}" for entry in path)
