from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.web.forwarded import client_address, forwarded_scheme

PROXIES = (ip_network("10.0.0.0/8"), ip_network("127.0.0.1"), ip_network("fd00::/8"))
TRUSTED = st.sampled_from(["10.0.0.1", "10.9.9.9", "127.0.0.1", "fd00::1", "::ffff:10.0.0.3"])
PEOPLE = st.one_of(st.ip_addresses(), st.ip_addresses(v=4)).filter(
    lambda address: not any(address in proxies for proxies in PROXIES) and getattr(address, "ipv4_mapped", None) is None
)
JUNK = st.one_of(
    st.sampled_from(
        [
            "",
            "unknown",
            "_hidden",
            "localhost",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.4/8",
            "fe80::1%eth0",
            "01.2.3.4",
            '"1.2.3.4"',
            "for=1.2.3.4",
            "1.2.3.4:99999999",
            "[1.2.3.4]x",
            "<script>",
            "١.٢.٣.٤",
        ]
    ),
    st.text(max_size=10).filter(lambda text: "," not in text and not any(c in text for c in ".:")),
)


def written(address, form):
    """As proxies write addresses: bare, or with the port they saw."""
    if form == "bare":
        return str(address)
    return f"{address}:54321" if address.version == 4 else f"[{address}]:54321"


@given(PEOPLE, st.lists(st.text(max_size=30)))
def test_what_an_unknown_peer_claims_counts_for_nothing(peer, claims):
    assert client_address(str(peer), claims, PROXIES) == str(peer)
    assert forwarded_scheme(str(peer), ["https"], PROXIES) is None


@given(
    TRUSTED,
    st.lists(st.one_of(PEOPLE.map(str), TRUSTED, JUNK), max_size=3),
    PEOPLE,
    st.lists(TRUSTED, max_size=3),
    st.sampled_from(["bare", "with port"]),
    st.integers(0, 5),
)
def test_the_nearest_hop_that_is_no_proxy_is_the_client_whatever_stands_before_it(
    peer, claims, person, hops, form, cut
):
    chain = [*claims, written(person, form), *hops]
    headers = [part for part in (" , ".join(chain[:cut]), ",".join(chain[cut:])) if part]
    assert client_address(peer, headers, PROXIES) == str(person)


@given(TRUSTED, st.lists(st.one_of(PEOPLE.map(str), TRUSTED, JUNK), max_size=3), JUNK, st.lists(TRUSTED, max_size=2))
def test_beyond_something_that_is_no_address_nothing_is_believed(peer, claims, junk, hops):
    found = client_address(peer, [",".join([*claims, junk, *hops])], PROXIES)
    nearest = ip_address(hops[0] if hops else peer)
    assert found == str(getattr(nearest, "ipv4_mapped", None) or nearest)


def test_without_a_header_the_proxy_itself_is_the_client():
    assert client_address("10.0.0.1", [], PROXIES) == "10.0.0.1"
    assert client_address("", ["1.2.3.4"], PROXIES) == ""


@pytest.mark.parametrize(
    ("headers", "scheme"),
    [
        (["https"], "https"),
        (["HTTPS , http"], "https"),
        (["http", "https"], "http"),
        (["ws"], None),
        ([""], None),
        ([], None),
    ],
)
def test_the_scheme_is_what_the_outermost_proxy_saw(headers, scheme):
    assert forwarded_scheme("10.0.0.1", headers, PROXIES) == scheme
