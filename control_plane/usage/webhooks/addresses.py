"""Valid addresses of webhooks: none of an internal network, however it is written or resolved."""

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

import httpx

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SPECIAL = tuple(
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure's own services, as its machines see them
        "192.88.99.0/24",  # 6to4 relays, out of use (RFC 7526): nobody knows who answers
        "3fff::/20",  # documentation (RFC 9637)
    )
)
"""What the registries, or this Python's copy of them, call global and no webhook has a business with."""
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def url_fault(url: str) -> str | None:
    """What is wrong with the URL's text, or ``None``."""
    try:
        parts = urlsplit(url)
        port = parts.port
        httpx.URL(url).host  # noqa: B018  names that are none show when they are decoded
    except (ValueError, httpx.InvalidURL) as error:
        return f"is no URL: {error}"
    if parts.scheme not in {"http", "https"}:
        return "must begin with https:// or http://"
    if not parts.hostname:
        return "names no host"
    if parts.username is not None or parts.password is not None:
        return "must hold no user and no password: messages are signed instead"
    if parts.fragment:
        return "must hold no fragment"
    return "names port 0" if port == 0 else None


def host_of(url: httpx.URL) -> str:
    """The host as it was written: ``url.host`` is decoded, and would be encoded again by other rules (ß as ss)."""
    return url.raw_host.decode("ascii")


def is_public(address: Address) -> bool:
    """Whether an address belongs to the internet at large, also by what is embedded in it (RFC 4291, 6052, 3056)."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:  # RFC 3879: out of use, and still routed in places
            return False
    if any(address.version == network.version and address in network for network in _SPECIAL):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def all_public(addresses: Iterable[str]) -> bool:
    """Whether every address of a name belongs to the internet."""
    return all(is_public(ipaddress.ip_address(address.partition("%")[0])) for address in addresses)
