"""What a manifest says, drawn from one in the form in which it is hashed."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from billing_core.month_close.model import canonical, digest
from components.months.rows import (
    card_rows,
    customer_rows,
    exception_rows,
    export_rows,
    facts_rows,
    read_manifest,
    set_rows,
    status_rows,
    stripe_rows,
    total_rows,
)

SHA = "ab" * 32


def customer(name: str | None, langfuse: str | None, unexplained: str = "0") -> dict:
    books = {"langfuse_credits": langfuse, "ledger_credits": langfuse, "sent_credits": "1", "stripe_credits": None}
    return {"customer_id": name, **books, "unexplained_credits": unexplained}


MANIFEST = {
    "manifest": "billing-close/1",
    "period": "2026-10",
    "timezone": "Europe/Berlin",
    "from": "2026-09-30T22:00:00Z",
    "to": "2026-10-31T23:00:00Z",
    "closed_at": "2026-11-03T08:00:00Z",
    "closed_by": "fay",
    "booking": 1234,
    "totals": {
        "events": 1200,
        "credits_ai_tokens": "1000",
        "credits_compute": "234.5",
        "credits_storage": "0",
        "credits_total": "1234.5",
        "amount_usd": "0.04938",
        "cost_usd": None,
        "tokens_in": 1,
        "tokens_out": 2,
        "tokens_total": 3,
    },
    "by_status": [{"status": "processed", "events": 1200, "credits": "1234.5", "amount_usd": "0.04938"}],
    "rate_cards": [{"id": "builtin-1", "sha256": SHA}, {"id": "legacy", "sha256": None}],
    "stripe": {
        "connected": True,
        "reconciled_at": "2026-11-03T07:59:00Z",
        "reconciliation_sha256": SHA,
        "langfuse_credits": "1234.5",
        "ledger_credits": "1234.5",
        "sent_credits": "1234",
        "stripe_credits": None,
        "unexplained_credits": "0",
        "customers": [
            customer("cus_a", "10"),
            customer("cus_b", "20"),
            customer("cus_c", "1", "5"),
            customer(None, None),
        ],
    },
    "exports": [
        {"dataset": "usage-events", "format": "csv", "rows": 1200, "bytes": 34567, "sha256": SHA, "totals": {}},
        {"dataset": "usage-events", "format": "journal", "rows": 2, "bytes": 90, "sha256": SHA, "totals": {}},
    ],
    "exceptions": [
        {
            "cause": "unsent",
            "group": "unsent",
            "says": "not sent yet",
            "events": 1000,
            "credits": "5.5",
            "event_ids": [],
            "accepted_by": "fay",
            "reason": "agreed",
        },
        {
            "cause": "not_connected",
            "group": "unexplained",
            "says": "Stripe is not connected",
            "events": 0,
            "credits": None,
            "event_ids": [],
            "accepted_by": "fay",
            "reason": "agreed",
        },
    ],
    "notes": [],
    "previous": {"period": "2026-09", "sha256": "cd" * 32},
    "sets": {"events": {"entries": 1200, "sha256": SHA}, "meter_events": {"entries": 0, "sha256": SHA}},
    "audit_head": {"seq": 1500, "hash": "ef" * 32},
}


def test_a_manifest_is_believed_only_if_its_text_is_the_one_that_was_hashed():
    text = canonical(MANIFEST)
    assert read_manifest(text, digest(text)) == MANIFEST
    assert read_manifest(text.replace("1234.5", "1234.6"), digest(text)) is None
    assert read_manifest("not even JSON", SHA) is None


def test_totals_are_exact_and_what_is_unknown_is_not_zero():
    rows = total_rows(MANIFEST)
    assert dict(zip(rows["Total"], rows["Figure"], strict=True)) == {
        "Events": "1,200",
        "AI token credits": "1,000",
        "Compute credits": "234.5",
        "Storage credits": "0",
        "Credits": "1,234.5",
        "Amount (USD)": "0.04938",
        "Langfuse cost (USD)": "unknown",
        "Tokens in": "1",
        "Tokens out": "2",
        "Tokens": "3",
    }


def test_statuses_sets_and_exports_stand_with_their_whole_hashes():
    assert status_rows(MANIFEST)["Credits"] == ["1,234.5"]
    assert set_rows(MANIFEST) == {
        "Entries": ["Events", "Meter events"],
        "Number": ["1,200", "0"],
        "SHA-256": [SHA, SHA],
    }
    exports = export_rows(MANIFEST)
    assert exports["Export"] == ["Usage events as CSV", "Usage events as journal"]
    assert exports["Bytes"] == ["34,567", "90"]
    assert exports["SHA-256"] == [SHA, SHA]


def test_exceptions_name_who_accepted_what_and_why():
    assert exception_rows(MANIFEST) == {
        "Cause": ["Not sent", "Stripe is not connected"],
        "What": ["not sent yet", "Stripe is not connected"],
        "Events": ["1,000", "0"],
        "Credits": ["5.5", "unknown"],
        "Accepted by": ["fay", "fay"],
        "Reason": ["agreed", "agreed"],
    }


def test_the_books_are_told_in_sum_and_per_customer_the_unexplained_first():
    assert stripe_rows(MANIFEST)["Credits"] == ["1,234.5", "1,234.5", "1,234", "unknown", "0"]
    assert customer_rows(MANIFEST, 10)["Customer"] == ["cus_c", "cus_b", "cus_a", "no customer"]
    assert customer_rows(MANIFEST, 1)["Unexplained"] == ["5"]


def test_credits_of_the_earlier_system_come_with_no_card():
    assert card_rows(MANIFEST)["SHA-256"] == [SHA, "no card"]


def test_where_it_stands_is_told_on_the_clocks_of_the_reporting_timezone():
    rows = facts_rows(MANIFEST, ZoneInfo("Europe/Berlin"))
    facts = dict(zip(rows["Fact"], rows["Value"], strict=True))
    assert facts["From"] == "2026-10-01 00:00:00"
    assert facts["Audit log at the close"] == "entry 1,500, efefefefefef"
    assert facts["Previous close"] == "September 2026, cdcdcdcdcdcd"
    assert facts_rows({**MANIFEST, "previous": None}, ZoneInfo("UTC"))["Value"][-1] == "none"
