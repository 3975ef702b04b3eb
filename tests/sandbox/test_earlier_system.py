"""A sandbox that took over from an earlier billing system."""

from datetime import UTC, datetime

from billing_core.sandbox.data.catalog import ORGANIZATIONS
from billing_core.sandbox.data.dataset import SandboxDataset
from billing_core.sandbox.stripe.subscriptions import SandboxSubscription
from billing_core.sandbox.stripe.switches import Switches

NOW = datetime(2026, 3, 10, 15, 30, tzinfo=UTC)
ACME = next(o.customer for o in ORGANIZATIONS if o.name == "Acme")


def truths(**options):
    return SandboxDataset(7, 900, 60, now=NOW, **options).truth()


def test_traces_before_the_current_billing_period_are_marked_as_billed_and_later_ones_are_not():
    begins = datetime.fromtimestamp(SandboxSubscription.of(ACME, Switches(), int(NOW.timestamp())).period.start, UTC)
    mine = [t for t in truths(taken_over=NOW).values() if t.customer_id == ACME and t.oddity == "plain"]
    assert {t.legacy_status for t in mine if t.timestamp < begins} == {"processed"}
    assert {t.legacy_status for t in mine if t.timestamp >= begins} == {None}


def test_a_trace_without_a_customer_was_billed_by_nobody():
    assert all(t.legacy_status is None for t in truths(taken_over=NOW).values() if t.customer_id is None)


def test_nothing_else_about_the_traces_changes():
    plain, marked = truths(), truths(taken_over=NOW)
    assert plain.keys() == marked.keys()
    assert [(t.tokens_total, t.cost_usd) for t in plain.values()] == [
        (t.tokens_total, t.cost_usd) for t in marked.values()
    ]
