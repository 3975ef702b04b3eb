from __future__ import annotations

import pytest

from billing_core.auth.audit import log_event
from billing_core.web import wiring


@pytest.fixture(autouse=True)
def demo(tmp_path, monkeypatch, packages_scanned_once):
    """A process in demo mode, as right after its start, that keeps its files in a folder of its own.

    Sign-in events are logged only: they would open a ledger behind the back of every test that signs in.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BILLING_MODE", "demo")
    monkeypatch.setenv("BILLING_WAREHOUSE_URL", f"duckdb:///{tmp_path}/data/billing.duckdb")
    monkeypatch.setattr(wiring, "audit_trail", wiring.AuditTrail(log_event))
    wiring.close()
    yield
    wiring.close()
