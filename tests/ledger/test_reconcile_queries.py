"""What is read from the ledger for a comparison, from a real one."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest

from billing_core.ledger.reconcile_queries import active_customers, late_candidates, read_ledger, sent_to
from billing_core.reconcile.books import UPSTREAM
from billing_core.values.usage_frame import Window
from tests.factories import ledger_at, usage_row

START = datetime(2026, 11, 1, tzinfo=UTC)
WINDOW = Window(START, START + timedelta(days=1))
BEFORE, INSIDE, AFTER = START - timedelta(hours=1), START + timedelta(hours=10), START + timedelta(hours=30)
EDGE = START + timedelta(days=1)


@pytest.fixture
def ledger(tmp_path):
    rows = [
        usage_row(id="before", timestamp=BEFORE),
        usage_row(id="inside", timestamp=INSIDE, customer_id="cus_b"),
        usage_row(id="edge", timestamp=EDGE),
        usage_row(id="nobody", timestamp=START, customer_id=None),
    ]
    ledger = ledger_at(tmp_path / "billing.duckdb", rows)
    yield ledger
    ledger.engine.close()


def write(ledger, *intents, holds=()):
    """Store intents `(identifier, stamp, value, state, first attempt, {event: credits})` of cus_a, and holds."""
    with ledger.engine.transaction() as writer:
        for identifier, stamp, value, state, tried, covers in intents:
            writer.insert(
                "intents",
                {
                    "identifier": identifier,
                    "customer_id": "cus_a",
                    "stamp": stamp,
                    "value": value,
                    "state": state,
                    "credits": Decimal(value),
                    "carried_before": Decimal(0),
                    "first_attempt_at": tried,
                },
            )
            for event_id, amount in covers.items():
                row = {"identifier": identifier, "event_id": event_id, "customer_id": "cus_a", "credits": amount}
                writer.insert("coverage", row)
        for event_id, cause, released in holds:
            writer.insert("holds", {"event_id": event_id, "cause": cause, "held_at": START, "released_at": released})


def ids(table, name="id"):
    return sorted(table[name].to_pylist())


def test_events_intents_and_coverage_of_the_window_are_read(ledger):
    write(
        ledger,
        ("m-inside", INSIDE, 150, "accepted", INSIDE, {"inside": Decimal(150)}),
        ("m-before", BEFORE, 150, "accepted", BEFORE, {"before": Decimal(150)}),
    )
    books = read_ledger(ledger.engine, WINDOW)
    assert (ids(books.events), ids(books.intents, "identifier")) == (["inside", "nobody"], ["m-inside"])
    assert books.coverage.to_pylist() == [
        {
            "identifier": "m-inside",
            "event_id": "inside",
            "customer_id": "cus_a",
            "credits": Decimal(150),
            "state": "accepted",
            "stamp": INSIDE.replace(tzinfo=None),
        }
    ]


def test_events_outside_that_an_intent_of_the_window_covers_come_along(ledger):
    write(ledger, ("m1", INSIDE, 1, "accepted", INSIDE, {"before": Decimal(1)}))
    books = read_ledger(ledger.engine, WINDOW)
    assert ids(books.events) == ["before", "inside", "nobody"]


def test_coverage_of_the_window_s_events_by_a_later_intent_comes_along(ledger):
    write(ledger, ("m1", AFTER, 1, "accepted", AFTER, {"inside": Decimal(1), "edge": Decimal(0)}))
    books = read_ledger(ledger.engine, WINDOW)
    assert (ids(books.coverage, "event_id"), books.intents.num_rows) == (["inside"], 0)


def test_all_of_what_an_intent_of_the_window_covers_comes_along(ledger):
    write(
        ledger, ("m1", INSIDE, 3, "accepted", INSIDE, {"before": Decimal(1), "inside": Decimal(1), "gone": Decimal(1)})
    )
    assert ids(read_ledger(ledger.engine, WINDOW).coverage, "event_id") == ["before", "gone", "inside"]


def test_a_trace_that_moved_into_the_window_brings_its_booking_and_what_covers_it(ledger):
    write(ledger, ("m1", BEFORE, 150, "accepted", BEFORE, {"before": Decimal(150)}))
    named = ["before", "inside", "unheard-of"]
    upstream = pa.Table.from_pylist(
        [{"id": i, "timestamp": INSIDE.replace(tzinfo=None), "credits_total": Decimal(1), "flags": ""} for i in named],
        schema=UPSTREAM,
    )
    books = read_ledger(ledger.engine, WINDOW, upstream)
    assert ids(books.events) == ["before", "inside", "nobody"]
    assert ids(books.coverage, "event_id") == ["before"]


def test_only_active_holds_are_read(ledger):
    write(ledger, holds=[("inside", "on_hold", None), ("nobody", "no_customer", START)])
    assert read_ledger(ledger.engine, WINDOW).holds.to_pylist() == [{"event_id": "inside", "cause": "on_hold"}]


def test_an_empty_ledger_is_empty_books(tmp_path):
    ledger = ledger_at(tmp_path / "empty.duckdb")
    books = read_ledger(ledger.engine, WINDOW, UPSTREAM.empty_table())
    assert [t.num_rows for t in (books.events, books.coverage, books.intents, books.holds)] == [0, 0, 0, 0]
    ledger.engine.close()


def test_customers_with_usage_or_intents_are_active(ledger):
    write(ledger, ("m1", INSIDE, 5, "sending", INSIDE, {}))
    assert ids(ledger.engine.read(active_customers(WINDOW)), "customer_id") == ["cus_a", "cus_b"]


def test_only_sent_intents_first_tried_after_the_end_of_a_period_may_be_late(ledger):
    write(
        ledger,
        ("late", INSIDE, 5, "accepted", AFTER, {}),
        ("in time", INSIDE, 5, "accepted", INSIDE, {}),
        ("never arrived", INSIDE, 5, "rejected", AFTER, {}),
    )
    assert ids(ledger.engine.read(late_candidates(WINDOW, EDGE)), "identifier") == ["late"]


def test_what_was_sent_to_a_customer_is_added_up_over_a_half_open_period(ledger):
    write(
        ledger,
        ("first", START, 5, "accepted", START, {}),
        ("last", INSIDE, 7, "confirmed", INSIDE, {}),
        ("next", EDGE, 11, "accepted", EDGE, {}),
        ("unknown", INSIDE, 13, "sending", INSIDE, {}),
    )
    assert ledger.engine.read(sent_to("cus_a", START, EDGE)).to_pylist() == [{"value": 12}]
    assert ledger.engine.read(sent_to("cus_x", START, EDGE)).to_pylist() == [{"value": 0}]
