"""What no artefact may hold: secrets, the host of a package registry, foreign top-level packages."""

import ipaddress
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tidegate.contract.credentials import credential_kind
from tools.release.archives import Member, members

# Put together here, so that this file names none itself.
KNOWN_HOSTS = frozenset(
    ".".join(parts)
    for parts in (
        ("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("npmjs", "com"), ("yarnpkg", "com"),
        ("proxy", "golang", "org"), ("crates", "io"), ("maven", "apache", "org"), ("maven", "org"), ("rubygems", "org"),
    )
)  # fmt: skip

SECRETS = {
    "a private key": re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY"),
    "a token of GitHub": re.compile(rb"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{40})"),
    "a token of GitLab": re.compile(rb"\bglpat-[\w-]{20}"),
    "a token of npm": re.compile(rb"\bnpm_[A-Za-z0-9]{36}|:_authToken"),
    "a token of a Python index": re.compile(rb"\bpypi-AgE[\w-]{20}"),
    "a token of Slack": re.compile(rb"\bxox[abprs]-[\w-]{10}"),
    "a key of AWS": re.compile(rb"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a key of Google": re.compile(rb"\bAIza[\w-]{35}"),
    "a JSON web token": re.compile(rb"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"),
}
CREDENTIAL = re.compile(rb"\btg[a-z]?_[\w-]{49}")
SECRET_FILES = re.compile(
    r"(?:^|/)(?:\.env(?:\.\w+)?|\.netrc|\.npmrc|\.pypirc|\.git|\.htpasswd|id_(?:rsa|ed25519|ecdsa)|signing-key|admin-token"
    r"|secrets\.json|[^/]+\.(?:pem|key|p12|pfx|jks|kdbx|gpg))(?:/|$)"
)
OWN_PACKAGES = frozenset({"control_plane", "data_plane", "tidegate", "tidegate_client"})
DIST_INFO = re.compile(r"[\w.-]+\.dist-info")


def faults(artefacts: Iterable[Path], hosts: Collection[str]) -> list[str]:
    """A line for each thing that may not be there, with the member that holds it and without the secret itself."""
    found: list[str] = []
    for artefact in artefacts:
        inside = list(members(artefact))
        for member in inside:
            found += [f"{member.path}: {fault}" for fault in _faults_of(member, hosts)]
        if artefact.suffix == ".whl":
            found += [f"{artefact.name}: top-level {name}" for name in _foreign(inside)]
    return found


def _faults_of(member: Member, hosts: Collection[str]) -> Iterator[str]:
    if SECRET_FILES.search(member.path):
        yield "a file that holds secrets by its name"
    for what, pattern in SECRETS.items():
        if pattern.search(member.content):
            yield f"holds {what}"
    for match in CREDENTIAL.finditer(member.content):
        kind = credential_kind(match[0].decode())
        if kind is not None:
            yield f"holds a credential of Tidegate ({kind})"
    lower = member.content.lower()
    for host in hosts:
        if host.encode() in lower:
            yield f"names the package registry {host}"


def _foreign(inside: Iterable[Member]) -> list[str]:
    top = {member.path.split("/")[1] for member in inside}
    return sorted(name for name in top - OWN_PACKAGES if DIST_INFO.fullmatch(name) is None)


def registry_hosts() -> frozenset[str]:
    """The public registries, and those that pip, uv and npm are set to on this machine: their names alone."""
    urls = [os.environ.get(name, "") for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX_URL", "UV_INDEX",
            "UV_DEFAULT_INDEX", "npm_config_registry", "NPM_CONFIG_REGISTRY")]  # fmt: skip
    urls.append(_said([sys.executable, "-m", "pip", "config", "get", "global.index-url"]))
    npm = shutil.which("npm")
    if npm is not None:
        urls.append(_said([npm, "config", "get", "registry"]))
    hosts = {_host(url) for text in urls for url in text.split()}
    return KNOWN_HOSTS | {host for host in hosts if host is not None}


def _said(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _host(url: str) -> str | None:
    """The name of a host; ``None`` for addresses and for names without a dot, which say nothing about anybody."""
    host = urlsplit(url.partition("=")[2] if "=" in url.partition("://")[0] else url).hostname
    if host is None or "." not in host:
        return None
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host
    return None
