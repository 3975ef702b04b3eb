"""Parses host names and addresses in URLs and headers: strictly, into one spelling that can be compared."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}

_HOST_PORT = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?\.?)(?::(?P<port>[0-9]{1,5}))?")

_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<rest>[^/?#@\\]+)")

_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")

PRIVATE_SUFFIXES = (".internal", ".local", ".home.arpa")
"""Endings of names that the internet's name servers never answer for."""


class Reach(StrEnum):
    """How far a request to a host travels: this machine, a private network, the internet."""

    LOOPBACK = "loopback"
    PRIVATE = "private"
    PUBLIC = "public"


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host in its one spelling (lower case, no final dot, addresses as `ipaddress` writes them), a port if given."""

    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> HostPort | None:
        """The host and port of a `Host` header; `None` for anything a browser would not send."""
        found = _HOST_PORT.fullmatch(text.lower()) if text.isascii() else None
        if found is None:
            return None
        host = found["host"]
        if host.startswith("["):
            address = address_of(host[1:-1])
            if not isinstance(address, IPv6Address):
                return None
            host = str(address)
        elif ".." in host:
            return None
        host = host.removesuffix(".")
        port = None if found["port"] is None else int(found["port"])
        if not host or len(host) > 253 or (port is not None and not 0 < port < 65536):
            return None
        return cls(host, port)

    def __str__(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port is None else f"{name}:{self.port}"


@dataclass(frozen=True, slots=True)
class Site:
    """A web site's scheme, host and port: what browsers call an origin."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, origin: str) -> Site | None:
        """The site of an `Origin` header; `None` for `null` and anything else that is no web page's."""
        found = _ORIGIN.fullmatch(origin.lower()) if origin.isascii() else None
        place = None if found is None else HostPort.parse(found["rest"])
        if found is None or place is None:
            return None
        return cls(found["scheme"], place.host, place.port or DEFAULT_PORTS[found["scheme"]])

    @classmethod
    def of_url(cls, url: str) -> Site | None:
        """The site of a URL that people open, which may have a path; `None` if it is none."""
        try:
            parts = urlsplit(url)
            name, colon, port = parts.netloc.partition(":")
            netloc = parts.netloc if name.startswith("[") else name.encode("idna").decode() + colon + port
        except (ValueError, UnicodeError):
            return None
        if not url.isprintable() or "?" in url or "#" in url or not _PATH.fullmatch(parts.path):
            return None
        return cls.parse(f"{parts.scheme}://{netloc}")

    def __str__(self) -> str:
        return f"{self.scheme}://{HostPort(self.host, None if self.port == DEFAULT_PORTS[self.scheme] else self.port)}"

    def is_at(self, place: HostPort) -> bool:
        """Whether a page of this site would be requested with this `Host` header."""
        return self.host == place.host and self.port == (place.port or DEFAULT_PORTS[self.scheme])


def address_of(text: str) -> IPv4Address | IPv6Address | None:
    """The IP address a text stands for: an IPv4 address inside IPv6 is the IPv4 address; zones are refused."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def network_of(address: str) -> str:
    """The network that an address is counted as: IPv6 by network, because every host has 2^64 addresses of its own."""
    found = address_of(address)
    if isinstance(found, IPv6Address):
        return str(IPv6Network((found, 64), strict=False))
    return address if found is None else str(found)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself, by address or by name."""
    return reach_of(host) is Reach.LOOPBACK


def reach_of(host: str) -> Reach:
    """How far a request to `host` travels, told without asking any name server.

    A name without a dot is found on the machine's own network only, as service names in a compose file are.
    """
    host = host.lower().strip("[]").removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return Reach.LOOPBACK
    address = address_of(host) or _legacy_address(host)
    if address is not None:
        if address.is_loopback:
            return Reach.LOOPBACK
        return Reach.PUBLIC if address.is_global else Reach.PRIVATE
    return Reach.PRIVATE if "." not in host or host.endswith(PRIVATE_SUFFIXES) else Reach.PUBLIC


def _legacy_address(host: str) -> IPv4Address | None:
    """`0x7f.1` and `2130706433` are 127.0.0.1 to every program that connects."""
    if not re.fullmatch(r"[0-9a-fx.]*[0-9a-f]", host) or not host[0].isdigit():
        return None
    try:
        return IPv4Address(socket.inet_aton(host))
    except OSError:
        return None
