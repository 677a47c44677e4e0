"""Finds the limit of a counter by its key alone, for keys that peers send."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from data_plane.config.index import Clients, RuleIndex
from data_plane.config.limit_resolution import of_whole_site
from data_plane.config.routes import NO_ENDPOINT
from data_plane.config.rulebook import Rulebook
from data_plane.config.strict_limits import for_client, moves_rights, strict_params_of
from data_plane.store.strict_packing import StrictParams
from data_plane.store.subjects import limit_of_key
from tidegate.contract.config import Client
from tidegate.contract.limits import LimitRule

_CLIENT = re.compile(rb"\{([^:{}]+)\}")
_SITE = re.compile(rb"[{|]i:[0-9a-f:]+/48(?:[}|.]|$)")
MAX_KNOWN = 10_000


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
        id, client, of_site = parts_of(key)
        rule = self._rules.get(id)
        if rule is None:
            return None
        whole, rule = rule, _of_client(rule, client, index.clients, now_s)
        name = (rule.id, of_site, rule is whole, rule.limit, rule.burst)
        limit = self._known.get(name)
        if limit is None:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            if of_site:
                rule = of_whole_site(rule)
            limit = StrictLimit(rule, strict_params_of(rule, self._region, revision))
            self._known[name] = limit
        return limit


def params_in_force(index: RuleIndex, key: bytes, now_s: float) -> bytes | None:
    """The current script parameters of a key's limit, of any mode; ``None`` if the limit is gone."""
    id, client, of_site = parts_of(key)
    rule = index.book.by_id.get(id)
    if rule is None:
        return None
    rule = _of_client(rule, client, index.clients, now_s)
    return index.book.resolved(rule, NO_ENDPOINT, of_site=of_site).params


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


@lru_cache(MAX_KNOWN)
def parts_of(key: bytes) -> tuple[int, str | None, bool]:
    """A key's limit, its client, and whether it is of a whole site. Cached, as counters come again tick after tick."""
    found = _CLIENT.match(key)
    client = unquote(found[1].decode("utf-8", "replace")) if found else None
    return limit_of_key(key), client, b"/48" in key and _SITE.search(key) is not None
