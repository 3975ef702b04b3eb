from __future__ import annotations

import pytest
import stripe

from billing_core.sandbox import Dataset, create_app
from billing_core.sandbox.catalog import ORGANIZATIONS
from billing_core.sandbox.stripe import unflatten

ACME = next(o.customer for o in ORGANIZATIONS if o.id == "org_acme")


@pytest.fixture
def client(sandbox):
    """The official SDK, every base address on the sandbox."""
    key, url = sandbox.environment["STRIPE_API_KEY"], sandbox.environment["STRIPE_API_BASE"]
    return stripe.StripeClient(key, base_addresses={"api": url, "meter_events": url, "files": url, "connect": url})


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


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (event("a", payload={"stripe_customer_id": "cus_gone"}), "No such customer: 'cus_gone'"),
        (event("b", payload={"value": "many"}), "not a number"),
        (event("c", payload={"value": "1e3"}), "not a number"),
        (event("d", payload={"value": "0.30000000000000004"}), "15 significant digits"),
        (event("e", payload={"value": ""}), "Missing required payload key: value"),
        (event("f", event_name="steps"), "No active meter"),
        (event("g", timestamp=1_600_000_000), "too far in the past"),
        (event("h", timestamp=4_000_000_000), "too far in the future"),
        (event("i" * 101), "at most 100 characters"),
    ],
)
def test_a_meter_event_that_cannot_be_billed_is_refused_with_the_reason(client, given, text):
    with pytest.raises(stripe.InvalidRequestError, match=text):
        client.v1.billing.meter_events.create(given)


def test_an_identifier_is_remembered_for_a_day(now, call):
    at = [int(now.timestamp() * 1000)]
    app = create_app(Dataset(1, 1, now=now), clock=lambda: at[0])
    form = {"event_name": "credits", "identifier": "i", "payload[stripe_customer_id]": ACME, "payload[value]": "5"}
    key = {"Authorization": "Bearer sk_test_sandbox"}
    statuses = []
    for hours in (0, 23, 1):
        at[0] += hours * 3_600_000
        statuses.append(call(app, "POST", "/v1/billing/meter_events", data=form, headers=key).status_code)
    assert statuses == [200, 400, 200]


def test_a_wrong_key_is_a_401(sandbox):
    url = sandbox.url
    with pytest.raises(stripe.AuthenticationError):
        stripe.StripeClient("sk_test_other", base_addresses={"api": url}).v1.customers.list()


def test_form_fields_with_brackets_become_an_object():
    assert unflatten("a=1&payload%5Bvalue%5D=5&payload[x]=") == {"a": "1", "payload": {"value": "5", "x": ""}}
