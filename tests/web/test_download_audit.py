"""Whatever leaves by a download is in the audit log: who, what, how much, which hash."""

import hashlib
import json

from billing_core.access import Principal, Role
from billing_core.service import BillingService
from billing_core.web import wiring
from billing_core.web.downloads import _audited
from tests.stand_ins import called_as

ANN = Principal("ann", Role.ANALYST)


class Log:
    def __init__(self):
        self.entries = []

    def audit(self, actor, action, detail):
        self.entries.append((actor, action, json.loads(json.dumps(detail))))


def test_a_download_is_an_entry_with_its_hash_when_it_is_over(monkeypatch):
    log = Log()
    monkeypatch.setattr(wiring, "service", lambda: called_as(BillingService, log))
    pieces = _audited(["id\r\n", "1\r\n"], ANN, "usage-events.csv", {"status": ["error"]})
    assert b"".join(pieces) == b"id\r\n1\r\n"
    assert log.entries == [
        (
            "ann",
            "export",
            {
                "file": "usage-events.csv",
                "filter": {"status": ["error"]},
                "bytes": 7,
                "whole": True,
                "sha256": hashlib.sha256(b"id\r\n1\r\n").hexdigest(),
            },
        )
    ]


def test_a_download_that_is_broken_off_says_how_far_it_got(monkeypatch):
    log = Log()
    monkeypatch.setattr(wiring, "service", lambda: called_as(BillingService, log))
    pieces = _audited([b"first", b"second"], ANN, "usage-events.csv", {})
    next(pieces)
    pieces.close()
    assert [(detail["whole"], detail["bytes"]) for _, _, detail in log.entries] == [(False, 5)]
