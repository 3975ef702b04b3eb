"""The HTTP API over a real ledger: tokens, scope, parameters and the sentences of its refusals."""

import hashlib
import json

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from billing_core.types import FLAT_FIELDS
from billing_core.web import wiring
from billing_core.web.cookies import COOKIE_NAME
from billing_core.web.downloads import download_routes
from billing_core.web.usage_api import explore, usage_events
from tests.factories import service_over, usage_row
from tests.web.client import Client

SECRETS = {"all": "token-for-all", "acme": "token-for-acme", "none": "token-for-none"}
ADDRESS = "/api/billing/usage/events"
EXPLORE = "/api/billing/explore"


def entry(name, role, organizations):
    digest = hashlib.sha256(SECRETS[name].encode()).hexdigest()
    return {"name": f"{name} of ours", "sha256": digest, "role": role, "organizations": organizations}


@pytest.fixture
def api(tmp_path, monkeypatch, demo):
    ledger = tmp_path / "billing.duckdb"
    rows = [
        usage_row(id=f"t{n}", organization_id=f"org_{n % 2}", customer_id=None if n == 0 else "cus") for n in range(6)
    ]
    service_over(ledger, rows).close()
    tokens = [entry("all", "admin", ["*"]), entry("acme", "analyst", ["org_1"]), entry("none", "analyst", [])]
    (tmp_path / "tokens.json").write_text(json.dumps({"tokens": tokens}))
    monkeypatch.setenv("BILLING_WAREHOUSE_URL", f"duckdb:///{ledger}")
    monkeypatch.setenv("BILLING_API_TOKENS", str(tmp_path / "tokens.json"))
    wiring.close()
    routes = [Route(ADDRESS, usage_events), Route(EXPLORE, explore), *download_routes()]
    return Client(Starlette(routes=routes))


def get(client, query="", token="all", address=ADDRESS):  # noqa: S107
    return client.get(address + query, headers={"Authorization": f"Bearer {SECRETS[token]}"})


def test_a_good_token_gets_the_document_of_the_events_command(api):
    answer = get(api, "?limit=2&sort=id&order=asc")
    assert answer.status_code == 200
    found = answer.json()
    assert [event["id"] for event in found["events"]] == ["t0", "t1"]
    assert found["pagination"]["total_items"] == 6
    assert found["totals"]["credits"]["total"] == "900"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Basic token-for-all", "token-for-all"])
def test_without_a_good_token_it_is_401(api, header):
    answer = api.get(ADDRESS, headers={} if header is None else {"Authorization": header})
    assert answer.status_code == 401
    assert "events" not in answer.json()


def test_a_limited_token_sees_its_organizations_only(api):
    found = get(api, token="acme").json()
    assert {event["organization_id"] for event in found["events"]} == {"org_1"}
    assert found["pagination"]["total_items"] == 3
    assert get(api, token="none").json()["pagination"]["total_items"] == 0


@pytest.mark.parametrize("organization", ["org_0", "org_that_never_was"])
def test_a_foreign_organization_is_403_whether_it_exists_or_not(api, organization):
    assert get(api, f"?organization={organization}", token="acme").status_code == 403


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("?limit=0", "limit"),
        ("?page=x", "page"),
        ("?sort=nothing", "sort"),
        ("?status=done", "status"),
        ("?from=yesterday", "from"),
        ("?colour=red", "colour"),
        ("?limit=5&limit=6", "limit"),
        ("?order=up", "order"),
        ("?held=perhaps", "held"),
        ("?stage=somewhere", "stage"),
        ("?credit_type=fun", "credit_type"),
    ],
)
def test_a_bad_parameter_is_422_and_named(api, query, named):
    answer = get(api, query)
    assert answer.status_code == 422
    assert named in answer.json()["error"]


def test_a_repeated_filter_means_any_of_its_values(api):
    assert get(api, "?status=error&status=pending").json()["pagination"]["total_items"] == 6
    assert get(api, "?status=error").json()["pagination"]["total_items"] == 1


def test_why_events_are_not_in_stripe_is_a_filter(api):
    assert get(api, "?cause=no_customer&cause=too_old").json()["pagination"]["total_items"] == 1
    assert get(api, "?held=true").json()["pagination"]["total_items"] == 0
    assert get(api, "?stage=billed_before").json()["pagination"]["total_items"] == 0


def test_types_of_credits_are_a_filter(api):
    assert get(api, "?credit_type=storage").json()["pagination"]["total_items"] == 0
    assert get(api, "?credit_type=storage&credit_type=compute").json()["pagination"]["total_items"] > 0


def test_without_repeated_means_without_all_of_them(api):
    assert [event["id"] for event in get(api, "?without=customer").json()["events"]] == ["t0"]
    assert get(api, "?without=customer&without=user").json()["events"] == []
    assert get(api, "?without=organization", token="acme").json()["events"] == []
    answer = get(api, "?without=customer&without=name")
    assert (answer.status_code, answer.json()["parameter"]) == (422, "without")


def test_an_unreachable_warehouse_is_503(api, tmp_path, monkeypatch):
    broken = tmp_path / "broken.duckdb"
    broken.write_text("no ledger" * 1000)
    monkeypatch.setenv("BILLING_WAREHOUSE_URL", f"duckdb:///{broken}")
    wiring.close()
    answer = get(api)
    assert answer.status_code == 503
    assert "Traceback" not in answer.text


def test_without_a_tokens_file_everybody_is_refused(api, monkeypatch):
    monkeypatch.delenv("BILLING_API_TOKENS")
    wiring.close()
    assert get(api).status_code == 401


def test_the_csv_needs_a_session(api):
    assert api.get("/download/usage-events.csv").status_code == 401


def test_the_csv_of_a_signed_in_person_is_their_filter(api):
    gatekeeper = wiring.gatekeeper()
    session_id = gatekeeper.sign_in("analyst-acme", "acme-demo", "127.0.0.1")
    cookie = gatekeeper.cookie_for(gatekeeper.ticket(session_id))
    answer = api.get("/download/usage-events.csv", headers={"Cookie": f"{COOKIE_NAME}={cookie}"})
    assert answer.status_code == 200
    assert answer.text.splitlines()[0].split(",") == list(FLAT_FIELDS)
    assert "org_0" not in answer.text
    assert "attachment" in answer.headers["content-disposition"]


def test_usage_is_explored_within_what_a_token_may_see(api):
    query = "?by=organization,model&metric=credits&organization=org_1"
    for token in ("all", "acme"):
        found = get(api, query, token, EXPLORE).json()
        assert found["rows"] == [
            {"organization": "org_1", "model": "gpt-5", "credits": "300"},
            {"organization": "org_1", "model": None, "credits": "150"},
        ]
        assert found["totals"] == {"credits": "450"}
    assert get(api, "?by=model", "none", EXPLORE).json()["rows"] == []
    assert get(api, "?by=model&organization=org_0", "acme", EXPLORE).status_code == 403
    assert api.get(EXPLORE + "?by=model").status_code == 401


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("", "by"),
        ("?by=planet", "by"),
        ("?by=user&by=model", "by"),
        ("?by=user&metric=x", "metric"),
        ("?by=user&limit=5", "limit"),
        ("?by=user&colour=red", "colour"),
        ("?by=token_class&metric=users", "metric"),
    ],
)
def test_what_cannot_be_explored_is_422_and_named(api, query, named):
    answer = get(api, query, address=EXPLORE)
    assert (answer.status_code, answer.json()["parameter"]) == (422, named)
