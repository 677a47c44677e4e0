"""Maps entries of rate limit descriptors to members of a check, by domain, as the operator's file says."""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from data_plane.store.subjects import MAX_ATTRIBUTE_BYTES
from tidegate.contract.decision import MAX_COST, CheckRequest

MEMBERS = ("api_key", "client", "ip", "endpoint", "method", "path")
ATTRIBUTE = "attribute:"
IGNORE = "ignore"
AUTHORIZATION = "authorization"
"""The value of such a header: a key after ``Bearer``, or nothing."""
_KEYS = ("api_key", AUTHORIZATION)
PLAIN: Mapping[str, str] = {
    "remote_address": "ip",
    "generic_key": "endpoint",
    AUTHORIZATION: AUTHORIZATION,
    **{member: member for member in MEMBERS},
}
"""Without a file, in every domain: entry keys are the names of their meaning."""
MAX_VALUE_BYTES = 8_192


class InvalidMappingError(ValueError):
    """The file cannot be used; the message says where and why."""


class UnmappedError(Exception):
    """The gateway sent what the mapping does not know: the call fails."""


class MalformedError(Exception):
    """A malformed value, which an end client may have sent: it is refused, as gateways let errors pass."""


class Entry(Protocol):
    """One entry of a descriptor, as Envoy sends it."""

    @property
    def key(self) -> str:
        """The entry's key."""
        ...

    @property
    def value(self) -> str:
        """The entry's value."""
        ...


class RlsMapping:
    """``domains`` maps a domain to the meanings of its entry keys; ``None`` is ``PLAIN`` for every domain."""

    def __init__(self, domains: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self._domains = domains

    @classmethod
    def from_file(cls, path: Path) -> "RlsMapping":
        """Read a TOML file: tables ``[domains.<domain>]`` of ``<entry key> = "<meaning>"``.

        Raises ``InvalidMappingError``.
        """
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidMappingError(f"{path}: {error}") from error
        unknown = set(document) - {"domains"}
        domains = document.get("domains")
        if unknown or not isinstance(domains, dict) or not domains:
            raise InvalidMappingError(f"{path}: wanted [domains.<domain>] tables and nothing else")
        return cls({domain: _meanings(path, domain, entries) for domain, entries in domains.items()})

    def check(self, domain: str, entries: Iterable[Entry], cost: int) -> CheckRequest:
        """The check of a descriptor. Raises ``UnmappedError`` and ``MalformedError``."""
        meanings = PLAIN if self._domains is None else self._domains.get(domain)
        if meanings is None:
            raise UnmappedError(f"domain {domain[:64]!r} is not mapped")
        said: dict[str, str] = {}
        attributes: dict[str, str] = {}
        for entry in entries:
            key, value = entry.key, entry.value
            meaning = meanings.get(key)
            if meaning is None:
                raise UnmappedError(f"entry {key[:64]!r} of domain {domain[:64]!r} is not mapped")
            if meaning == IGNORE or (not value and meaning in _KEYS):
                continue
            is_attribute = meaning.startswith(ATTRIBUTE)
            most = MAX_ATTRIBUTE_BYTES if is_attribute else MAX_VALUE_BYTES
            if not value or "\0" in value or (4 * len(value) > most and len(value.encode()) > most):
                raise MalformedError(f"{meaning} is empty, too long or holds a NUL")
            if is_attribute:
                members, meaning = attributes, meaning[len(ATTRIBUTE) :]
            else:
                members = said
            if meaning in members:
                raise MalformedError(f"{meaning} was said twice")
            members[meaning] = value
        api_key = _only_key(said.get("api_key", ""), said.get(AUTHORIZATION, ""))
        client, endpoint, path = said.get("client"), said.get("endpoint"), said.get("path")
        if client is not None and api_key:
            raise MalformedError("client stands in for what was said as well")
        if endpoint is not None and path:
            raise MalformedError("endpoint stands in for what was said as well")
        return CheckRequest(
            api_key=api_key, client=client, ip=said.get("ip"), endpoint=endpoint, method=said.get("method"), path=path,
            cost=min(MAX_COST, cost), attributes=attributes,
        )  # fmt: skip


def _only_key(plain: str, authorization: str) -> str | None:
    """The key, from its own header or after ``Bearer``. Raises ``MalformedError`` if there are two."""
    if not authorization and "," not in plain:
        return plain.strip() or None
    keys = {*_keys_in(plain, bearer=False), *_keys_in(authorization, bearer=True)}
    if len(keys) > 1:
        raise MalformedError("more than one API key was sent")
    return keys.pop() if keys else None


def _keys_in(value: str, *, bearer: bool) -> Iterator[str]:
    """Envoy joins header lines of one name by commas: no key has one."""
    for part in value.split(","):
        scheme, _, token = part.strip().partition(" ") if bearer else ("bearer", "", part)
        if scheme.lower() == "bearer" and token.strip():
            yield token.strip()


def _meanings(path: Path, domain: str, entries: Any) -> dict[str, str]:
    if not isinstance(entries, dict) or not entries:
        raise InvalidMappingError(f"{path}: domains.{domain}: wanted entry keys with what they mean")
    for key, meaning in entries.items():
        known = meaning in (*MEMBERS, AUTHORIZATION, IGNORE) or (
            isinstance(meaning, str) and meaning.startswith(ATTRIBUTE) and len(meaning) > len(ATTRIBUTE)
        )
        if not known:
            wanted = ", ".join((*MEMBERS, AUTHORIZATION, f"{ATTRIBUTE}<name>", IGNORE))
            raise InvalidMappingError(f"{path}: domains.{domain}.{key}: {meaning!r} is none of {wanted}")
    return dict(entries)
