"""Finds the limit of a counter by its key alone, for keys that peers send."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from data_plane.config.index import Clients, RuleIndex
from data_plane.config.limit_resolution import Peers, RegionFacts, ResolvedLimit, of_whole_site, shared_params
from data_plane.config.routes import NO_ENDPOINT
from data_plane.config.rulebook import Rulebook
from data_plane.config.strict_limits import for_client, moves_rights, strict_params_of
from data_plane.store.strict_packing import StrictParams
from data_plane.store.subjects import limit_of_key
from tidegate.contract.config import Client
from tidegate.contract.limits import LimitRule, capacity

_CLIENT = re.compile(rb"\{([^:{}]+)\}")
_SITE = re.compile(rb"[{|]i:[0-9a-f:]+/48(?:[}|.]|$)")
_MAX_KNOWN = 10_000
_MAX_LASTING = 50_000
IMPLAUSIBLE = 64
"""A cell with more than this many times its limit is refused as implausible."""


class StrictLimit(NamedTuple):
    """A strict limit as it applies to the subject of a key."""

    rule: LimitRule
    params: StrictParams


class StrictLimits:
    """Finds the strict limit of a key, under the index in force and its revision."""

    def __init__(self, region: str, index: Callable[[], RuleIndex], revision: Callable[[], int]) -> None:
        self._region = region
        self._index = index
        self._revision = revision
        self._of_revision = -1
        self._book: Rulebook | None = None
        self._rules: dict[int, LimitRule] = {}
        self._known: dict[tuple[object, ...], StrictLimit] = {}

    def of_key(self, key: bytes, now_s: float) -> StrictLimit | None:
        """The limit, or ``None`` if this configuration has no such strict limit."""
        index, revision = self._index(), self._revision()
        if index.book is not self._book or revision != self._of_revision:
            self._book, self._of_revision, self._known = index.book, revision, {}
            self._rules = {rule.id: rule for rule in index.book.rules() if moves_rights(rule)}
        id, client, of_site = _parts_of(key)
        rule = self._rules.get(id)
        if rule is None:
            return None
        rule = _of_client(rule, client, index.clients, now_s)
        name = (rule.id, of_site, rule.limit, rule.burst)
        limit = self._known.get(name)
        if limit is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            if of_site:
                rule = of_whole_site(rule)
            limit = StrictLimit(rule, strict_params_of(rule, self._region, revision))
            self._known[name] = limit
        return limit


class SharedLimit(NamedTuple):
    """A shared limit as it applies to the subject of a key, with its script parameters.

    ``most`` is the most units that a plausible cell can have.
    """

    rule: LimitRule
    params: bytes
    most: int


class SharedLimits:
    """Finds the shared limit of a key, under the index in force and the state of the region."""

    def __init__(self, index: Callable[[], RuleIndex]) -> None:
        self._index = index
        self._book: Rulebook | None = None
        self._region_facts: RegionFacts | None = None
        self._known: dict[tuple[object, ...], SharedLimit] = {}
        self._seen: RuleIndex | None = None
        self._lasting: dict[bytes, SharedLimit] = {}
        """Limits of counters that cannot change while the index stays, as their client has no overrides."""

    def of_key(self, key: bytes, now_s: float) -> SharedLimit | None:
        """The limit, or ``None`` if this configuration has no such limit."""
        index = self._index()
        book = index.book
        if book is not self._book or book.region_facts is not self._region_facts:
            self._book, self._region_facts, self._known, self._seen = book, book.region_facts, {}, None
        if index is not self._seen or len(self._lasting) >= _MAX_LASTING:
            self._seen, self._lasting = index, {}
        known = self._lasting.get(key)
        if known is not None:
            return known
        id, client, of_site = _parts_of(key)
        rule = book.shared_by_id.get(id)
        if rule is None:
            return None
        principal = None if client is None else index.clients.get(client)
        if principal is None or not principal.client.overrides:
            limit = self._lasting[key] = self._limit(book, rule, of_site=of_site)
            return limit
        return self._limit(book, of_client(rule, principal.client, now_s), of_site=of_site)

    def _limit(self, book: Rulebook, rule: LimitRule, *, of_site: bool) -> SharedLimit:
        name = (rule.id, of_site, rule.limit, rule.burst)
        limit = self._known.get(name)
        if limit is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            if of_site:
                rule = of_whole_site(rule)
            limit = self._known[name] = SharedLimit(
                rule, shared_params(rule, book.region_facts, book.regions), IMPLAUSIBLE * max(1, capacity(rule))
            )
        return limit


def params_in_force(index: RuleIndex, key: bytes, now_s: float) -> bytes | None:
    """The current script parameters of a key's limit, of any mode; ``None`` if the limit is gone."""
    id, client, of_site = _parts_of(key)
    book = index.book
    rule = book.by_id.get(id)
    if rule is None:
        return None
    rule = _of_client(rule, client, index.clients, now_s)
    return ResolvedLimit(rule, NO_ENDPOINT, book.region, Peers(book.regions, book.region_facts), of_site=of_site).params


def of_client(rule: LimitRule, client: Client, now_s: float) -> LimitRule:
    """The rule under a client's override, if one is in force."""
    override = client.overrides.get(rule.name)
    return for_client(rule, None if override is None else override.at(now_s))


def _of_client(rule: LimitRule, client: str | None, clients: Clients, now_s: float) -> LimitRule:
    """The rule under the overrides of the client in a key."""
    principal = None if client is None else clients.get(client)
    if principal is None or not principal.client.overrides:
        return rule
    return of_client(rule, principal.client, now_s)


@lru_cache(_MAX_KNOWN)
def _parts_of(key: bytes) -> tuple[int, str | None, bool]:
    """A key's limit, its client, and whether it is of a whole site. Cached, as counters come again tick after tick."""
    found = _CLIENT.match(key)
    client = unquote(found[1].decode("utf-8", "replace")) if found else None
    return limit_of_key(key), client, b"/48" in key and _SITE.search(key) is not None
