from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.values.hosts import HostPort, Reach, Site, address_of, reach_of

LABELS = st.text(string.ascii_letters + string.digits, min_size=1, max_size=12)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
ADDRESSES = st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(lambda a: f"[{a}]"))
PORTS = st.integers(1, 65535)


@given(
    st.one_of(NAMES, ADDRESSES.filter(lambda text: "ffff" not in text)), st.none() | PORTS, st.booleans(), st.booleans()
)
def test_spellings_of_one_host_are_one_host(host, port, upper, dot):
    tail = "" if port is None else f":{port}"
    plain = HostPort.parse(host + tail)
    spelled = (host.upper() if upper else host) + ("." if dot and not host.startswith("[") else "") + tail
    assert plain is not None
    assert HostPort.parse(spelled) == plain
    assert HostPort.parse(str(plain)) == plain


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a b",
        "a@b",
        "u:p@h",
        "a..b",
        "a:",
        "a:0",
        "a:65536",
        "a:x",
        "a:8 ",
        "::1",
        "[::1",
        "[1.2.3.4]",
        "[fe80::1%eth0]",
        "[::ffff:127.0.0.1]",
        "h/x",
        "h?x",
        "h#x",
        "h\\x",
        "a,b",
        "münchen.de",
        "\u212aitten",
        "-a",
        ".",
        "a" * 254,
    ],
)
def test_what_no_browser_sends_as_a_host_is_no_host(text):
    assert HostPort.parse(text) is None


@given(st.text(max_size=40))
def test_any_text_is_a_host_that_reads_back_or_none(text):
    found = HostPort.parse(text)
    assert found is None or HostPort.parse(str(found)) == found


@given(st.sampled_from(["http", "https", "HTTPS"]), st.one_of(NAMES, ADDRESSES), st.none() | PORTS)
def test_a_page_is_at_the_host_and_port_it_was_loaded_from_and_nowhere_else(scheme, host, port):
    site = Site.parse(f"{scheme}://{host}" + ("" if port is None else f":{port}"))
    place = HostPort.parse(host + ("" if port is None else f":{port}"))
    if site is None or place is None:
        assert site is place is None  # an IPv4 address written inside IPv6
        return
    assert site.is_at(place)
    assert not site.is_at(HostPort("x" + place.host, place.port))
    assert not site.is_at(HostPort(place.host, site.port % 65535 + 1))
    assert Site.parse(str(site)) == site


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "file://",
        "http://",
        "http:h",
        "//h",
        "http://u@h",
        "http://h/",
        "http://h?x",
        "http://h#x",
        "http://h\\@evil",
        "ftp://h",
        "chrome-extension://abc",
        "http://h:80:80",
        "http://a,http://b",
        "http://a http://b",
    ],
)
def test_what_is_no_web_page_has_no_site(origin):
    assert Site.parse(origin) is None


def test_a_default_port_may_be_written_out_and_umlauts_are_written_as_browsers_send_them():
    assert Site.parse("https://h:443") == Site.parse("https://h") == Site.of_url("https://H/")
    assert str(Site.of_url("https://münchen.example:8443/team")) == "https://xn--mnchen-3ya.example:8443"


@pytest.mark.parametrize(
    "url", ["https://h\n/", "https://h/ü", "https://h/a b", "https://h/%2e", "https:h", "https://ä..de"]
)
def test_an_address_nobody_types_is_none(url):
    assert Site.of_url(url) is None


@given(st.ip_addresses(v=4))
def test_an_address_reaches_equally_far_however_it_is_written(address):
    number = int(address)
    spellings = (str(address), f"::ffff:{address}", str(number), hex(number), str(address) + ".")
    assert len({reach_of(text) for text in spellings}) == 1
    assert (reach_of(str(address)) is Reach.PUBLIC) == (address.is_global)


def test_a_zone_is_no_address():
    assert address_of("fe80::1%eth0") is None
    assert str(address_of("::ffff:1.2.3.4")) == "1.2.3.4"
