from __future__ import annotations

import sys
from types import ModuleType

import pytest
from starlette.applications import Starlette

import app
from billing_core.errors import WarehouseError
from billing_core.web import wiring
from tests.web.client import Client


class Service:
    fault: Exception | None = None

    @classmethod
    def from_settings(cls, _settings, *, connect=None, connect_stripe=None):
        del connect, connect_stripe
        return cls()

    def close(self):
        pass

    def ready(self):
        if self.fault is not None:
            raise self.fault


@pytest.fixture
def service(demo, monkeypatch):
    module = ModuleType("billing_core.service")
    module.BillingService = Service
    monkeypatch.setitem(sys.modules, "billing_core.service", module)
    monkeypatch.setattr(Service, "fault", None)
    return Service


@pytest.fixture
def client(service):
    return Client(Starlette(routes=app.routes()))


def test_ready_when_settings_accounts_and_warehouse_are(client):
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


def test_not_ready_while_the_warehouse_does_not_answer(client, service):
    service.fault = WarehouseError("the ledger data/billing.duckdb is held by another program")
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "unavailable", "reason": "WarehouseError"})
    service.fault = None
    assert client.get("/readyz").status_code == 200


def test_not_ready_but_healthy_with_a_wrong_setting(client, monkeypatch):
    monkeypatch.setenv("BILLING_TIMEZONE", "Nowhere/Land")
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "unavailable", "reason": "SettingsError"})
    assert client.get("/healthz").json() == {"status": "ok"}


def test_an_unexpected_fault_is_still_a_short_answer(client, service):
    service.fault = RuntimeError("secret detail")
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "unavailable", "reason": "InternalError"})


def test_health_needs_nothing_at_all(client, monkeypatch):
    monkeypatch.setattr(wiring, "ready", lambda: pytest.fail("asked"))
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert answer.headers["cache-control"] == "no-store"


def test_an_address_that_the_http_api_does_not_have_is_not_answered_with_a_page(client):
    answer = client.get("/api/billing/stats")
    assert answer.status_code == 404
    assert answer.json()["error"].startswith("no such address")
