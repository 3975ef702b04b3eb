from __future__ import annotations

from dataclasses import replace

import pytest

import app
from billing_core.errors import SettingsError
from billing_core.settings import load_settings
from billing_core.web import wiring
from billing_core.web.live_rules import ServerOptions, check_server

ANYWHERE = "0.0.0.0"  # noqa: S104 - what is refused
GOOD = ServerOptions("127.0.0.1", enable_cors=True, enable_xsrf_protection=True, show_error_details="none")


def live(**variables):
    return load_settings({"BILLING_MODE": "live", **variables}, env_file=None)


FAULTS = [
    ({"enable_cors": False}, "server.enableCORS: off"),
    ({"enable_xsrf_protection": False}, "server.enableXsrfProtection: off"),
    ({"development_mode": True}, "global.developmentMode: on"),
    ({"enable_agent_api": True}, "server.enableAgentApi: on"),
    *[
        ({"show_error_details": value}, "client.showErrorDetails")
        for value in ("full", "stacktrace", True, False, "true")
    ],
    *[
        ({"address": value}, "server.address: .* set BILLING_PUBLIC_URL to the address people use, or listen on 127")
        for value in (ANYWHERE, "::", "", None, "10.0.0.7", "billing.example", "8.8.8.8")
    ],
]


@pytest.mark.parametrize(("change", "says"), FAULTS)
def test_live_mode_refuses_a_loosened_server_in_one_line_and_a_demo_takes_it(change, says):
    options = replace(GOOD, **change)
    with pytest.raises(SettingsError, match=says) as caught:
        check_server(live(), options)
    assert "\n" not in str(caught.value)
    check_server(load_settings({"BILLING_MODE": "demo"}, env_file=None), options)


def test_the_options_it_comes_with_are_those_that_are_checked(monkeypatch):
    loosened = {
        "server.address": ANYWHERE,
        "server.enableCORS": False,
        "server.enableXsrfProtection": False,
        "client.showErrorDetails": "full",
        "global.developmentMode": True,
        "server.enableAgentApi": True,
    }
    assert app.server_options() == GOOD
    monkeypatch.setattr(app.st, "get_option", loosened.__getitem__)
    assert app.server_options() == ServerOptions(ANYWHERE, False, False, "full", True, True)


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
@pytest.mark.parametrize("details", ["none", "type"])
def test_live_mode_takes_the_options_it_comes_with(address, details):
    check_server(live(), replace(GOOD, address=address, show_error_details=details))


@pytest.mark.parametrize("address", [ANYWHERE, "10.0.0.7", None])
def test_with_a_public_address_live_mode_may_listen_anywhere(address):
    check_server(live(BILLING_PUBLIC_URL="https://billing.example"), replace(GOOD, address=address))


def test_pages_and_routes_get_no_settings_in_a_loosened_server(demo, monkeypatch):
    monkeypatch.setenv("BILLING_MODE", "live")
    monkeypatch.setattr(wiring, "_server", [replace(GOOD, enable_cors=False)])
    with pytest.raises(SettingsError, match="enableCORS"):
        wiring.settings()
    assert wiring.door_rules().is_live
