"""Who gets past the door, as a rule over headers and through the middleware; `test_door_served.py` asks a server."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from urllib.parse import urlparse

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from streamlit import net_util
from streamlit.web.server.starlette.starlette_websocket import _is_origin_allowed

from billing_core.values.hosts import Site
from billing_core.web.door import Door, DoorRules, refusal
from billing_core.web.sockets import SIGNED_IN_BYTES, SOCKET_HEADER, STRANGER_BYTES, STRANGERS_PER_ADDRESS, Sockets

PUBLIC = Site.parse("https://billing.example")
LIVE = DoorRules()
BEHIND = DoorRules(PUBLIC)
DEMO = DoorRules(is_live=False)
LOOPBACK = st.sampled_from(
    ["127.0.0.1", "127.8.8.8", "localhost", "LocalHost", "localhost.", "[::1]", "[0:0:0:0:0:0:0:1]"]
)
PORTS = st.integers(1, 65535)


def status(host, origin=None, arrived_at="127.0.0.1", rules=LIVE):
    found = refusal([host], [] if origin is None else [origin], arrived_at, rules)
    return 200 if found is None else found.status


@given(LOOPBACK, st.none() | PORTS, st.sampled_from(["127.0.0.1", "::1", "::ffff:127.0.0.1", None]))
def test_on_this_machine_its_own_names_lead_in_through_any_forwarded_port(name, port, arrived_at):
    host = name if port is None else f"{name}:{port}"
    assert status(host, None, arrived_at) == 200
    assert status(host, f"http://{host}", arrived_at) == 200
    assert status(host, f"http://{host}", arrived_at, BEHIND) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.1.2.3",
        "billing.example",
        "xn--lcalhost-p7a",
        "128.0.0.1",
        "[::2]",
        "0.0.0.0:8501",
        "dashboard",
    ],
)
def test_a_name_that_is_not_this_machines_is_misdirected(host):
    assert status(host) == 421


@pytest.mark.parametrize(
    "hosts", [[], [""], ["localhost", "localhost"], ["u@localhost"], ["localhost:x"], ["localhost evil"]]
)
def test_a_request_names_exactly_one_valid_host(hosts):
    assert refusal(hosts, [], "127.0.0.1", LIVE).status == 400


@given(
    st.text(max_size=30) | st.builds("http://{}".format, st.text(max_size=20)) | st.sampled_from(["null", "file://"])
)
def test_no_text_but_the_pages_own_origin_gets_in(origin):
    site = Site.parse(origin)
    expected = 200 if site and (site.host, site.port) == ("localhost", 8501) else 403
    assert status("localhost:8501", origin) == expected


@given(LOOPBACK, PORTS, PORTS, st.sampled_from(["http", "https"]))
def test_another_port_of_this_machine_is_another_site(name, port, other, scheme):
    assert status(f"{name}:{port}", f"{scheme}://{name}:{other}") == (200 if port == other else 403)


def test_two_origins_are_none():
    assert refusal(["localhost"], ["http://localhost"] * 2, "127.0.0.1", LIVE).status == 403


@pytest.mark.parametrize("host", ["billing.example", "BILLING.example.", "billing.example:443"])
@pytest.mark.parametrize("arrived_at", ["127.0.0.1", "10.0.0.7"])
def test_behind_a_proxy_the_public_address_leads_in_with_its_own_pages_only(host, arrived_at):
    assert status(host, None, arrived_at, BEHIND) == 200
    assert status(host, "https://billing.example", arrived_at, BEHIND) == 200
    for foreign in ("http://billing.example", "https://billing.example:8443", "https://www.billing.example", "null"):
        assert status(host, foreign, arrived_at, BEHIND) == 403


def test_a_proxy_that_drops_the_port_or_the_name_of_the_host_does_not_let_another_site_in():
    rules = DoorRules(Site.parse("https://billing.example:8443"))
    assert status("billing.example", "https://billing.example:8443", rules=rules) == 200
    assert status("billing.example", "https://billing.example", rules=rules) == 403
    assert status("127.0.0.1:8501", "https://billing.example:8443", rules=rules) == 200
    assert status("127.0.0.1:8501", "https://billing.example", rules=rules) == 403


@pytest.mark.parametrize("host", ["10.0.0.7:8501", "10.0.0.7", "localhost", "billing.example:8501", "evil.example"])
def test_from_other_machines_only_the_public_address_is_served(host):
    assert status(host, None, "10.0.0.7", BEHIND) == 421
    assert status(host, None, "10.0.0.7", LIVE) == 421


@pytest.mark.parametrize(
    ("host", "expected"),
    [("10.0.0.7:8501", 200), ("192.168.1.2:9000", 200), ("localhost:9000", 200), ("evil.example", 421)],
)
def test_a_demo_on_a_network_is_found_by_address_and_not_by_a_name_somebody_points_at_it(host, expected):
    assert status(host, None, "10.0.0.7", DEMO) == expected


class Inner:
    """The application behind the door: keeps the scope, and receives until the line is cut."""

    def __init__(self):
        self.scopes, self.received = [], []
        self.on_message = lambda scope: None

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            self.received.append(len(message.get("bytes") or b""))
            self.on_message(scope)
            await send({"type": "websocket.send", "bytes": b"ok"})


@pytest.fixture
def inner():
    return Inner()


@pytest.fixture
def sockets():
    return Sockets()


def asked(
    inner, sockets, *headers, rules=LIVE, kind="http", path="/", messages=(), client=("127.0.0.1", 5), signed_in=False
):
    """What goes out for one request with these headers, and for these messages on a WebSocket."""

    async def is_signed_in(_cookie):
        return signed_in

    async def asking():
        door = Door(inner, lambda: rules, sockets, is_signed_in, "session")
        arriving = iter([*messages, {"type": "websocket.disconnect", "code": 1000}])
        sent = []

        async def receive():
            return next(arriving)

        async def send(message):
            sent.append(message)

        scope = {
            "type": kind,
            "path": path,
            "method": "GET",
            "scheme": "http" if kind == "http" else "ws",
            "query_string": b"",
            "server": ("127.0.0.1", 8501),
            "client": client,
            "headers": [(name.encode(), value.encode()) for name, value in headers],
        }
        await door(scope, receive, send)
        return sent

    return asyncio.run(asking())


def of(*sizes):
    return [{"type": "websocket.receive", "bytes": bytes(size)} for size in sizes]


HERE = ("host", "localhost:8501")


def test_a_refusal_is_one_plain_line(inner, sockets):
    start, body = asked(inner, sockets, ("host", "evil.example"))
    headers = Headers(raw=start["headers"])
    assert (start["status"], headers["content-type"]) == (421, "text/plain; charset=utf-8")
    assert body["body"].decode().count("\n") == 1
    assert b"BILLING_PUBLIC_URL" in body["body"]
    assert inner.scopes == []


def test_a_foreign_websocket_is_closed_before_it_is_accepted(inner, sockets):
    for headers in ([HERE, ("origin", "http://evil.example")], [("host", "evil.example")], [HERE, HERE]):
        assert asked(inner, sockets, *headers, kind="websocket") == [{"type": "websocket.close", "code": 1008}]
    assert inner.scopes == []


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_come_by_any_address_and_pages_do_not(inner, sockets, path):
    for headers in ([("host", "10.0.0.7:8501")], []):
        assert asked(inner, sockets, *headers, path=path)[0]["status"] == 200
        assert asked(inner, sockets, *headers, path="/download/usage-events.csv")[0]["status"] in {400, 421}
        assert asked(inner, sockets, *headers, path=path + "/x")[0]["status"] in {400, 421}
    assert asked(inner, sockets, HERE, ("origin", "http://evil.example"), path=path)[0]["status"] == 403


HOSTS = st.builds(
    lambda name, port: name if port is None else f"{name}:{port}",
    LOOPBACK | st.just("billing.example"),
    st.none() | PORTS,
)
ORIGINS = st.builds(
    "{}{}".format, st.sampled_from(["http://", "https://", "HTTP://", ""]), HOSTS | st.text(max_size=15)
)


@given(HOSTS, st.none() | ORIGINS, st.sampled_from([LIVE, BEHIND, DEMO]))
def test_what_gets_through_never_makes_streamlit_ask_the_internet(host, origin, rules):
    inner = Inner()
    more = [] if origin is None else [("origin", origin)]
    asked(inner, Sockets(), ("host", host), *more, ("x-forwarded-host", "evil.example"), rules=rules, kind="websocket")
    for scope in inner.scopes:
        headers = Headers(scope=scope)
        assert len(headers.getlist("host")) == 1
        assert headers.getlist("origin") == ([] if origin is None else [origin])
        assert origin is None or urlparse(origin).netloc == headers["host"]
        assert _is_origin_allowed(headers.get("origin"), headers["host"])


@pytest.fixture(autouse=True)
def no_internet(monkeypatch):
    def asks():
        raise AssertionError("asked the internet")

    monkeypatch.setattr(net_util, "get_external_ip", asks)
    monkeypatch.setattr(net_util, "get_internal_ip", asks)


def test_the_client_and_the_scheme_are_those_in_front_of_a_configured_proxy(inner, sockets):
    forwarded = [("x-forwarded-for", "6.6.6.6, 9.9.9.9"), ("x-forwarded-proto", "https")]
    rules = DoorRules(trusted=(ip_network("127.0.0.1"),))
    asked(inner, sockets, HERE, *forwarded, rules=rules)
    asked(inner, sockets, HERE, *forwarded, rules=rules, kind="websocket")
    asked(inner, sockets, HERE, *forwarded)
    seen = [(scope["client"], scope["scheme"]) for scope in inner.scopes]
    assert seen == [(("9.9.9.9", 0), "https"), (("9.9.9.9", 0), "wss"), (("127.0.0.1", 5), "http")]


def test_a_stranger_may_send_64_kilobytes_and_a_signed_in_person_a_megabyte(inner, sockets):
    for signed_in, limit in ((False, STRANGER_BYTES), (True, SIGNED_IN_BYTES)):
        inner.received.clear()
        sent = asked(inner, sockets, HERE, kind="websocket", messages=of(limit, limit + 1, 1), signed_in=signed_in)
        assert inner.received == [limit]
        assert sent[-1] == {"type": "websocket.close", "code": 1009}


def test_text_is_refused_without_a_traceback(inner, sockets):
    sent = asked(inner, sockets, HERE, kind="websocket", messages=[{"type": "websocket.receive", "text": "x"}])
    assert sent[-1] == {"type": "websocket.close", "code": 1003}


def test_signing_in_and_out_over_a_socket_changes_what_it_may_send(inner, sockets):
    state = iter([True, False])

    def sign(scope):
        sockets.mark(Headers(scope=scope)[SOCKET_HEADER], is_signed_in=next(state))

    inner.on_message = sign
    sent = asked(inner, sockets, HERE, kind="websocket", messages=of(1, SIGNED_IN_BYTES, STRANGER_BYTES + 1))
    assert inner.received == [1, SIGNED_IN_BYTES]
    assert sent[-1]["code"] == 1009


def test_nobody_names_a_socket_but_the_door(inner, sockets):
    asked(inner, sockets, HERE, (SOCKET_HEADER, "stolen"), (SOCKET_HEADER.upper(), "stolen"), kind="websocket")
    (name,) = Headers(scope=inner.scopes[0]).getlist(SOCKET_HEADER)
    assert name != "stolen"


def test_strangers_hold_so_many_sockets_and_no_more_and_leave_room_behind_them(inner, sockets):
    stranger = {"kind": "websocket", "client": ("9.9.9.9", 1)}
    held = [sockets.admit("9.9.9.9", is_signed_in=False) for _ in range(STRANGERS_PER_ADDRESS)]
    assert asked(inner, sockets, HERE, **stranger) == [{"type": "websocket.close", "code": 1013}]
    assert asked(inner, sockets, HERE, **stranger, signed_in=True)[0]["type"] == "websocket.accept"
    sockets.leave(held[0])
    for _ in range(3):
        assert asked(inner, sockets, HERE, **stranger)[0]["type"] == "websocket.accept"


def test_each_warning_is_logged_once_and_strangers_cannot_fill_the_disk(sockets, caplog):
    async def is_signed_in(_cookie):
        return False

    door = Door(Inner(), lambda: LIVE, sockets, is_signed_in, "session")

    async def asking():
        for number in range(500):
            scope = {
                "type": "http",
                "path": "/",
                "method": "GET",
                "server": ("127.0.0.1", 1),
                "client": None,
                "headers": [(b"host", f"evil{number // 2}.example".encode())],
            }
            await door(scope, None, lambda _message: asyncio.sleep(0))

    asyncio.run(asking())
    assert len(caplog.messages) == len(set(caplog.messages)) == 51
    assert caplog.messages[-1].startswith("the door logs nothing more until the next start")
