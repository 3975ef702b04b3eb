"""Rules of settlements: who may be settled, one sum per customer and month, rounded once."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_core.ledger.settlements import OpenEvent
from billing_core.stripe_sync.settlement_rules import SettlementKind, plan
from billing_core.values.money import from_minor_units, in_minor_units, money
from billing_core.values.usage_frame import Window, month_window
from tests.examples import examples

BERLIN = ZoneInfo("Europe/Berlin")
START = datetime(2026, 9, 30, tzinfo=UTC)
CREDITS = st.decimals(-2000, 2000, places=6)
PRICE = Decimal("0.00004")


def event(id_="e", credits_=Decimal(1000), customer="cus_a", **facts):
    usual = {
        "counts_at": START,
        "credit_price_usd": PRICE,
        "sync_status": "error",
        "flags": (),
        "cause": "too_old",
        "was_rejected": False,
        "is_billed_elsewhere": False,
        "is_in_doubt": False,
        "parts": {customer: credits_} if credits_ else {},
    }
    return OpenEvent(id_, customer, START, **{**usual, **facts})


@st.composite
def events(draw):
    made = []
    for number in range(draw(st.integers(0, 8))):
        customer = draw(st.sampled_from(["cus_a", "cus_b", None]))
        credits_, other = draw(CREDITS), draw(st.sampled_from([Decimal(0), Decimal(-7)]))
        parts = {c: v for c, v in ((customer, credits_), ("cus_former", other)) if v}
        at = START + timedelta(hours=draw(st.integers(0, 48)))
        made.append(event(f"e{number}", customer=customer, counts_at=at, parts=parts))
    return made


@settings(max_examples=examples(60), deadline=None)
@given(events(), st.sampled_from(SettlementKind))
def test_every_event_is_settled_whole_or_skipped_with_a_reason_and_sums_are_exact(found, kind):
    asked = [one.id for one in found]
    made = plan(asked, found, kind, BERLIN, busy={})
    settled = {(part.event_id, one.customer_id): part.credits for one in made.settlements for part in one.parts}
    for one in found:
        for customer, credits_ in one.parts.items():
            if (one.id, customer) in settled:
                assert settled[one.id, customer] == credits_
            elif kind is SettlementKind.WRITE_OFF or customer == one.customer_id:
                assert made.skipped[one.id]
    assert set(asked) == set(made.event_ids) | set(made.skipped)
    assert not set(made.event_ids) & set(made.skipped)
    assert made.credits == sum(settled.values(), Decimal(0))
    assert made.amount_usd == made.credits * PRICE
    keys = [(one.customer_id, one.month) for one in made.settlements]
    assert len(set(keys)) == len(keys)
    for one in made.settlements:
        assert abs(one.rounding) <= Decimal("0.005")
        assert from_minor_units(one.amount, "usd") == one.amount_usd + one.rounding
        if kind is SettlementKind.INVOICE_ITEM:
            assert one.amount > 0
            assert one.customer_id is not None


def test_a_month_is_one_of_the_reporting_timezone():
    late = event(counts_at=datetime(2026, 9, 30, 22, 30, tzinfo=UTC))
    assert [one.month for one in plan(["e"], [late], SettlementKind.WRITE_OFF, BERLIN, busy={}).settlements] == [
        "2026-10"
    ]
    assert month_window("2026-12", BERLIN) == Window(
        datetime(2026, 11, 30, 23, tzinfo=UTC), datetime(2026, 12, 31, 23, tzinfo=UTC)
    )


@pytest.mark.parametrize(
    ("facts", "kind", "says"),
    [
        ({"flags": ("legacy_billed",)}, "write_off", "billed by the earlier system"),
        ({"is_billed_elsewhere": True}, "write_off", "the ledger it was imported from"),
        ({"is_in_doubt": True}, "write_off", "push first"),
        ({"parts": {}}, "write_off", "nothing is owed for it"),
        ({"parts": {}, "flags": ("written_off",)}, "invoice_item", "written off already"),
        ({"parts": {}, "flags": ("invoiced_separately",)}, "write_off", "invoiced separately already"),
        ({"sync_status": "pending", "cause": None}, "write_off", "push, or hold it first"),
        ({"sync_status": "pending", "cause": None, "flags": ("carried",)}, "write_off", "less than a whole credit"),
        ({"sync_status": "confirmed", "cause": None}, "write_off", "the difference can still be sent"),
        ({"customer": None}, "invoice_item", "nobody to invoice"),
        ({"parts": {"cus_b": Decimal(-5)}}, "invoice_item", "it only gives credits back"),
    ],
)
def test_why_an_event_cannot_be_settled(facts, kind, says):
    made = plan(["e"], [event(**facts)], SettlementKind(kind), BERLIN, busy={})
    assert made.settlements == ()
    assert says in made.skipped["e"]


@pytest.mark.parametrize("facts", [{}, {"sync_status": "pending", "cause": "on_hold"}, {"sync_status": "confirmed"}])
def test_what_is_stuck_on_hold_or_a_held_correction_is_settled(facts):
    for kind in SettlementKind:
        assert plan(["e"], [event(**facts)], kind, BERLIN, busy={}).event_ids == ("e",)


@pytest.mark.parametrize(
    ("amount", "currency", "minor", "shown"),
    [
        ("12.345", "usd", 1234, "12.34 USD"),
        ("12.355", "usd", 1236, "12.36 USD"),
        ("-0.005", "usd", 0, "0.00 USD"),
        ("1234.5", "jpy", 1234, "1,234 JPY"),
        ("-1.2345", "kwd", -1234, "−1.234 KWD"),
    ],
)
def test_money_in_minor_units_is_rounded_half_even_by_the_currencys_places(amount, currency, minor, shown):
    assert in_minor_units(Decimal(amount), currency) == minor
    assert money(minor, currency) == shown
