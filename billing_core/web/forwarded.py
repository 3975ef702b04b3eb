"""Finds a request's client address and scheme, by its connection and the trusted proxies in front."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

from starlette.types import ASGIApp

from billing_core.values.hosts import address_of

Networks: TypeAlias = Sequence[IPv4Network | IPv6Network]

_HOP = re.compile(r"(?P<v4>[0-9.]+)(?::[0-9]{1,5})?|\[(?P<v6>[0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?")
"""An address with the port that some proxies append."""


def is_within(address: IPv4Address | IPv6Address | None, networks: Networks) -> bool:
    """Whether an address belongs to one of the networks."""
    return address is not None and any(address in network for network in networks)


def client_address(peer: str, forwarded_for: Iterable[str], trusted: Networks) -> str:
    """The address a request comes from: the nearest one that is not a trusted proxy.

    `forwarded_for` are the `X-Forwarded-For` headers in their order. What an untrusted peer claims counts for nothing,
    and what stands left of something that is no address could be anybody's invention.
    """
    nearest = address_of(peer)
    if nearest is None:
        return peer
    hops = [hop.strip() for value in forwarded_for for hop in value.split(",")]
    while hops and is_within(nearest, trusted):
        before = _address_in(hops.pop())
        if before is None:
            break
        nearest = before
    return str(nearest)


def forwarded_scheme(peer: str, forwarded_proto: Iterable[str], trusted: Networks) -> str | None:
    """`http` or `https` as the outermost proxy saw it, `None` where no trusted proxy says."""
    if not is_within(address_of(peer), trusted):
        return None
    said = ",".join(forwarded_proto).split(",")[0].strip().lower()
    return said if said in {"http", "https"} else None


def take_peers_as_they_are() -> None:
    """Keep uvicorn from believing `X-Forwarded-For` of every process on this machine, its default.

    Called when `app.py` is imported, which uvicorn does right before it would put its middleware in front.
    """
    import uvicorn.config

    def bare(app: ASGIApp, trusted_hosts: object = None) -> ASGIApp:
        del trusted_hosts
        return app

    setattr(uvicorn.config, "ProxyHeadersMiddleware", bare)  # noqa: B010 - not an assignment mypy knows


def _address_in(hop: str) -> IPv4Address | IPv6Address | None:
    found = _HOP.fullmatch(hop)
    return address_of(hop if found is None else found["v4"] or found["v6"])
