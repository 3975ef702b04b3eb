from __future__ import annotations

import logging
from threading import Event

from billing_core.errors import WarehouseError
from billing_core.web import wiring
from billing_core.web.audit_trail import AuditTrail


def test_nobody_waits_for_a_busy_ledger_and_events_arrive_in_their_order():
    free, written = Event(), []

    def write(*event):
        free.wait(10)
        written.append(event)

    trail = AuditTrail(write)
    trail("ada", "sign-in", "from here")
    trail("ada", "sign-out", "by the person")
    assert written == []
    free.set()
    trail.drain()
    assert written == [("ada", "sign-in", "from here"), ("ada", "sign-out", "by the person")]


def test_throttled_attempts_cannot_fill_the_ledger(caplog):
    written = []
    trail = AuditTrail(lambda *event: written.append(event))
    with caplog.at_level(logging.INFO, "billing_core"):
        trail("ada", "sign-in throttled", "from here")
    trail.drain()
    assert written == []
    assert "sign-in throttled: ada (from here)" in caplog.text


def test_an_entry_the_ledger_refuses_is_in_the_log_and_the_next_one_is_written(caplog):
    written = []

    def write(who, what, detail):
        if who == "ada":
            raise WarehouseError("the ledger is held by another program")
        written.append(who)

    trail = AuditTrail(write)
    trail("ada", "sign-in", "from here")
    trail("bob", "sign-in", "from here")
    trail.drain()
    assert written == ["bob"]
    assert "sign-in of ada is missing in the ledger's audit log: the ledger is held by another program" in caplog.text


def test_signing_in_lands_in_the_ledgers_audit_log(demo, monkeypatch):
    monkeypatch.setattr(wiring, "audit_trail", AuditTrail(wiring._write_audit))
    wiring.gatekeeper().sign_in("finance", "finance-demo", "here")
    wiring.audit_trail.drain()
    found = wiring.service()._ledger.engine.rows("SELECT actor, action FROM audit")
    assert [(entry[0], entry[1]) for entry in found] == [("finance", "sign-in")]
