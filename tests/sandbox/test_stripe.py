from __future__ import annotations

import httpx
import psutil
import pytest
import stripe

from billing_core.errors import UpstreamError
from billing_core.sandbox.data.catalog import ORGANIZATIONS
from billing_core.sandbox.server import SandboxProcess
from billing_core.sandbox.stripe.wire import unflatten

ACME = next(o.customer for o in ORGANIZATIONS if o.id == "org_acme")


def sdk(sandbox):
    """The official SDK, every base address on the sandbox."""
    key, url = sandbox.environment["STRIPE_API_KEY"], sandbox.environment["STRIPE_API_BASE"]
    return stripe.StripeClient(key, base_addresses={"api": url, "meter_events": url, "files": url, "connect": url})


@pytest.fixture
def client(sandbox):
    return sdk(sandbox)


def event(identifier, **changes):
    payload = {"stripe_customer_id": ACME, "value": "120", **changes.pop("payload", {})}
    return {"event_name": "credits", "identifier": identifier, "payload": payload, **changes}


def test_the_sdk_reads_customers_page_by_page(client):
    customers = list(client.v1.customers.list({"limit": 4}).auto_paging_iter())
    assert {customer.id for customer in customers} == {o.customer for o in ORGANIZATIONS if o.customer}
    assert len(client.v1.customers.list().data) == 10


def test_the_sdk_reads_one_customer_and_misses_an_unknown_one(client):
    assert client.v1.customers.retrieve(ACME).name == "Acme"
    assert [c.id for c in client.v1.customers.list({"email": "billing@acme.example"}).data] == [ACME]
    with pytest.raises(stripe.InvalidRequestError) as missing:
        client.v1.customers.retrieve("cus_gone")
    assert (missing.value.http_status, missing.value.code) == (404, "resource_missing")


def test_there_is_one_active_meter_that_sums(client):
    (meter,) = client.v1.billing.meters.list({"status": "active"}).data
    assert (meter.event_name, meter.default_aggregation.formula, meter.event_time_window) == ("credits", "sum", None)


def test_a_meter_event_is_accepted_once(client):
    accepted = client.v1.billing.meter_events.create(event("once"))
    assert (accepted.identifier, accepted.payload["value"], accepted.livemode) == ("once", "120", False)

    with pytest.raises(stripe.InvalidRequestError, match="already exists with identifier once") as duplicate:
        client.v1.billing.meter_events.create(event("once"))
    assert (duplicate.value.http_status, duplicate.value.code) == (400, None)
    assert duplicate.value.headers["stripe-should-retry"] == "false"


def test_the_stream_goes_to_the_sandbox_too(client):
    token = client.v2.billing.meter_event_session.create().authentication_token
    stream = client.v2.billing.meter_event_stream
    assert stream.create({"events": [event("streamed")]}, {"api_key": token}) is None
    with pytest.raises(stripe.InvalidRequestError, match="already exists with identifier streamed"):
        client.v1.billing.meter_events.create(event("streamed"))


def test_a_process_with_a_journal_remembers_what_was_sent_before_it_was_killed(tmp_path):
    journal = tmp_path / "new folder" / "stripe.jsonl"
    with SandboxProcess(events=5, stripe_journal=journal) as first:
        sdk(first).v1.billing.meter_events.create(event("once"))
        psutil.Process(first.pid).kill()
    with SandboxProcess(events=5, stripe_journal=journal) as second:
        with pytest.raises(stripe.InvalidRequestError, match="already exists"):
            sdk(second).v1.billing.meter_events.create(event("once"))
        assert httpx.get(f"{second.url}/_sandbox/stripe/sums").json() == {ACME: "120"}


def test_a_journal_that_cannot_be_read_is_one_clear_line(tmp_path, capfd):
    journal = tmp_path / "stripe.jsonl"
    journal.write_text("{}\n", encoding="utf-8")
    with pytest.raises(UpstreamError, match="ended with code 2"):
        SandboxProcess(events=5, stripe_journal=journal).start()
    error = capfd.readouterr().err
    assert f"--stripe-journal {journal}: line 1 cannot be read" in error
    assert error.count("\n") == 1


def test_a_wrong_key_is_a_401(sandbox):
    url = sandbox.url
    with pytest.raises(stripe.AuthenticationError):
        stripe.StripeClient("sk_test_other", base_addresses={"api": url}).v1.customers.list()


def test_form_fields_with_brackets_become_an_object():
    assert unflatten("a=1&payload%5Bvalue%5D=5&payload[x]=") == {"a": "1", "payload": {"value": "5", "x": ""}}
