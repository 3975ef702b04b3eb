"""The door in front of a started dashboard: what only a real server can show."""

from __future__ import annotations

import socket
import struct
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import pytest

from billing_core.web.sockets import STRANGER_BYTES, STRANGERS_IN_ALL
from tests.browser.server import DASHBOARD, serving

ANSWER_SECONDS = 60
get = partial(httpx.get, timeout=ANSWER_SECONDS)


@pytest.fixture(scope="module")
def dashboard():
    with serving(DASHBOARD, {"BILLING_MODE": "demo", "BILLING_PUBLIC_URL": "https://billing.example"}) as server:
        yield server


def place_of(server):
    return server.url.removeprefix("http://")


def shaken(server, **headers):
    """A connection that has asked for a WebSocket, and the status line it got."""
    host, _, port = place_of(server).partition(":")
    line = socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS)
    lines = {
        "Host": place_of(server),
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": b64encode(bytes(16)).decode(),
        **headers,
    }
    request = "\r\n".join(["GET /_stcore/stream HTTP/1.1", *(f"{name}: {value}" for name, value in lines.items())])
    line.sendall(f"{request}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer and (part := line.recv(4096)):
        answer += part
    return line, answer.split(b"\r\n")[0].decode()


def close_code(line):
    """The code of the close frame that comes next."""
    head = line.recv(4, socket.MSG_WAITALL)
    assert head[0] == 0x88
    return struct.unpack(">H", head[2:4])[0]


def test_pages_and_sockets_of_other_sites_are_turned_away_at_once_and_own_ones_served(dashboard):
    own, here, public = dashboard.url, place_of(dashboard), "https://billing.example"
    for origin, host, expected in (
        (own, here, 101),
        (public, "billing.example", 101),
        (public, here, 101),
        (own.upper(), here, 101),
        ("http://evil.example", here, 403),
        ("null", here, 403),
        (own, "evil.example", 403),
        ("http://billing.example", "billing.example", 403),
    ):
        line, status = shaken(dashboard, Host=host, Origin=origin)
        line.close()
        assert int(status.split()[1]) == expected, (origin, host)
    assert get(own, headers={"Host": "evil.example"}).status_code == 421
    assert get(own, headers={"Origin": "http://evil.example"}).status_code == 403
    assert get(own + "/healthz", headers={"Host": "10.0.0.7"}).json() == {"status": "ok"}
    assert "External" not in dashboard.log
    assert "Did not auto detect" not in dashboard.log


def test_a_strangers_long_message_is_refused_by_its_length_before_a_byte_of_it_is_read(dashboard):
    for size, masked_length in ((STRANGER_BYTES + 1, 0xFF), (100_000_000, 0xFF)):
        line, status = shaken(dashboard)
        assert status.endswith("101 Switching Protocols")
        line.sendall(bytes([0x82, masked_length]) + struct.pack(">Q", size) + bytes(4))
        assert close_code(line) == 1009
        line.close()


def test_a_long_message_in_pieces_is_as_long(dashboard):
    line, _ = shaken(dashboard)
    half = STRANGER_BYTES // 2 + 1
    for opcode in (0x02, 0x00):
        line.sendall(bytes([opcode, 0xFE]) + struct.pack(">H", half) + bytes(4) + bytes(half))
    assert close_code(line) == 1009
    line.close()


def test_x_forwarded_for_of_this_machine_is_not_believed_unless_a_proxy_is_configured(dashboard):
    answer = get(dashboard.url, headers={"X-Forwarded-For": "9.9.9.9", "X-Forwarded-Proto": "https"})
    assert "strict-transport-security" not in answer.headers
    assert "ignored: X-Forwarded-For of 127.0.0.1" in dashboard.log


def test_strangers_sockets_are_capped_and_the_dashboard_goes_on_serving(dashboard):
    with ThreadPoolExecutor(8) as pool:
        lines = list(pool.map(lambda _: shaken(dashboard), range(STRANGERS_IN_ALL + 10)))
    accepted = [line for line, status in lines if " 101 " in status]
    assert len(accepted) <= STRANGERS_IN_ALL
    assert {status for _, status in lines if " 101 " not in status} == {"HTTP/1.1 403 Forbidden"}
    assert get(dashboard.url + "/healthz").status_code == 200
    for line, _ in lines:
        line.close()


def test_a_loosened_live_server_serves_its_health_and_names_the_option(tmp_path):
    environment = {
        "BILLING_MODE": "live",
        "BILLING_COOKIE_KEY": "0123456789 abcdefghijklmnopqrstuvwxyz",
        "BILLING_CREDENTIALS": str(tmp_path / "none.yaml"),
    }
    with serving(DASHBOARD, environment, "--server.enableCORS", "false") as server:
        assert get(server.url + "/healthz").status_code == 200
        assert get(server.url + "/readyz").json()["reason"] == "SettingsError"
    start, stop = [line for line in server.lines if " start: " in line or " stop: " in line]
    assert "settings refused (server.enableCORS: off" in start
    assert stop.rstrip().endswith("stop: signal SIGTERM")


def test_start_and_stop_are_logged_with_what_runs_and_why_it_ended(dashboard):
    (start,) = [line for line in dashboard.lines if " start: " in line]
    assert "demo mode, ledger duckdb:///" in start
    assert start.rstrip().endswith(f"listening on {place_of(dashboard)}")


@pytest.mark.parametrize("address", ["0.0.0.0", "::", ""])  # noqa: S104
def test_nobody_outside_is_asked_at_start_whatever_is_listened_on(tmp_path, address):
    """Streamlit would ask a server on the internet for the address this machine has there."""
    noted = tmp_path / "connections"
    with serving(
        DASHBOARD, {"BILLING_MODE": "demo", "TESTS_CONNECTIONS": str(noted)}, "--server.address", address
    ) as server:
        assert get(server.url + "/healthz").json() == {"status": "ok"}
        assert get(server.url).status_code == 200
    asked = noted.read_text().splitlines() if noted.exists() else []
    assert [line for line in asked if not any(here in line for here in ("127.0.0.1", "'::1'", "localhost"))] == []
    assert "External" not in server.log
    assert "Network URL" not in server.log
