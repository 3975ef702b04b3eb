from __future__ import annotations

import pytest

import app
from billing_core.web import wiring
from tests.web.client import Client

OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def client(demo):
    from starlette.applications import Starlette

    return Client(Starlette(routes=app.routes(), middleware=app.MIDDLEWARE), "http://localhost")


@pytest.fixture
def session(demo):
    return wiring.gatekeeper().sign_in("analyst", "analyst-demo", "here")


def fetch(client: Client, session: str, **headers: str):
    ticket = wiring.gatekeeper().ticket(session)
    return client.get(f"/auth/cookie/{ticket}", headers=headers or OWN_PAGE)


def test_a_ticket_is_answered_with_an_image_and_a_cookie_scripts_cannot_read(client, session):
    answer = fetch(client, session)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/gif"
    assert answer.headers["cache-control"] == "no-store"
    name, _, rest = answer.headers["set-cookie"].partition("=")
    value, *attributes = rest.split("; ")
    assert name == "billing_session"
    assert wiring.gatekeeper().session_in(value) == session
    assert sorted(attributes) == ["HttpOnly", "Max-Age=43200", "Path=/", "SameSite=lax"]


@pytest.mark.parametrize(
    ("settings", "headers", "is_secure"),
    [
        ({"BILLING_TRUSTED_PROXIES": "127.0.0.1"}, {"X-Forwarded-Proto": "https"}, True),
        ({"BILLING_TRUSTED_PROXIES": "10.0.0.0/8"}, {"X-Forwarded-Proto": "https"}, False),
        ({}, {"X-Forwarded-Proto": "https"}, False),
        ({"BILLING_PUBLIC_URL": "https://billing.example"}, {"Host": "billing.example"}, True),
        ({"BILLING_PUBLIC_URL": "http://billing.example"}, {"Host": "billing.example"}, False),
    ],
)
def test_over_https_the_cookie_never_travels_in_the_open(client, session, monkeypatch, settings, headers, is_secure):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    wiring.settings.forget()
    answer = fetch(client, session, **OWN_PAGE, **headers)
    assert ("Secure" in answer.headers["set-cookie"].split("; ")) == is_secure


def test_a_spent_or_invented_ticket_sets_nothing(client, session):
    ticket = wiring.gatekeeper().ticket(session)
    assert client.get(f"/auth/cookie/{ticket}", headers=OWN_PAGE).status_code == 200
    for again in (ticket, "guess"):
        answer = client.get(f"/auth/cookie/{again}", headers=OWN_PAGE)
        assert answer.status_code == 404
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Referer": "http://evil.example/dashboard"},
        {"X-Nothing": "said"},
    ],
    ids=str,
)
def test_a_foreign_page_can_neither_sign_somebody_in_nor_out(client, session, headers):
    for answer in (fetch(client, session, **headers), client.get("/auth/cookie/clear?1", headers=headers)):
        assert answer.status_code == 404
        assert "set-cookie" not in answer.headers


def test_without_fetch_metadata_the_referrer_speaks_for_the_own_page(client, session):
    assert fetch(client, session, Referer="http://localhost/usage_events?page=2").status_code == 200


def test_clearing_removes_the_cookie(client):
    answer = client.get("/auth/cookie/clear?1", headers=OWN_PAGE)
    assert answer.status_code == 200
    assert answer.headers["set-cookie"].startswith('billing_session=""; ')
    assert "Max-Age=0" in answer.headers["set-cookie"]


def test_with_wrong_settings_no_ticket_is_good(client, session, monkeypatch):
    ticket = wiring.gatekeeper().ticket(session)
    monkeypatch.setenv("BILLING_TIMEZONE", "Nowhere/Land")
    wiring.settings.forget()
    wiring.gatekeeper.forget()
    assert client.get(f"/auth/cookie/{ticket}", headers=OWN_PAGE).status_code == 404


def test_the_default_page_is_found_under_its_own_name_with_its_filters(client):
    answer = client.get("/usage_events?page=3&status=error")
    assert answer.status_code == 307
    assert answer.headers["location"] == "/?page=3&status=error"
    assert client.get("/usage_events").headers["location"] == "/"
