import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from billing_core.errors import SettingsError, UpstreamError
from billing_core.settings import load_settings
from billing_core.stripe.provider import StripeProvider

KEY = "rk_test_do_not_show_me"


def meter(**changes):
    return {
        "id": "mtr_1", "object": "billing.meter", "event_name": "credits", "status": "active",
        "default_aggregation": {"formula": "sum"}, "event_time_window": None,
        "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
        "value_settings": {"event_payload_key": "value"}, **changes,
    }  # fmt: skip


@contextlib.contextmanager
def stripe_answering(status, body):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def provider_at(base):
    return StripeProvider.from_settings(
        load_settings({"BILLING_MODE": "live", "STRIPE_API_KEY": KEY, "STRIPE_API_BASE": base}, env_file=None)
    )


def meters(*found):
    return stripe_answering(
        200, {"object": "list", "data": list(found), "has_more": False, "url": "/v1/billing/meters"}
    )


def test_a_meter_that_sums_credits_per_customer_is_accepted():
    with meters(meter(), meter(id="mtr_2", event_name="other")) as base:
        assert provider_at(base).meter().id == "mtr_1"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"status": "inactive"}, "it is inactive"),
        ({"default_aggregation": {"formula": "last"}}, "aggregates by last"),
        ({"event_time_window": "hour"}, "overwrite each other"),
        ({"value_settings": {"event_payload_key": "tokens"}}, "expected stripe_customer_id and value"),
    ],
)
def test_a_meter_that_would_miscount_is_refused_in_words(changes, says):
    with meters(meter(**changes)) as base, pytest.raises(SettingsError, match=says):
        provider_at(base).meter()


def test_no_meter_and_two_meters_are_refused():
    with meters() as base, pytest.raises(SettingsError, match="no meter"):
        provider_at(base).meter()
    with meters(meter(), meter(id="mtr_2")) as base, pytest.raises(SettingsError, match="2 meters"):
        provider_at(base).meter()


@pytest.mark.parametrize(
    ("status", "body"),
    [(401, {"error": {"message": "Invalid API Key", "type": "invalid_request_error"}}), (200, b"<html>sorry</html>")],
)
def test_what_stripe_refuses_is_one_line_without_the_key(status, body):
    with stripe_answering(status, body) as base, pytest.raises(UpstreamError) as caught:
        provider_at(base).meter()
    assert "\n" not in str(caught.value)
    assert KEY not in str(caught.value)


def test_without_a_key_the_variable_is_named():
    with pytest.raises(SettingsError, match="STRIPE_API_KEY"):
        StripeProvider.from_settings(load_settings({"BILLING_MODE": "live"}, env_file=None))


def test_the_sandbox_has_a_usable_meter(sandbox):
    settings = load_settings({"BILLING_MODE": "live", **sandbox.environment}, env_file=None)
    assert StripeProvider.from_settings(settings).meter().event_name == "credits"
