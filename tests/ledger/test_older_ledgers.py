"""A ledger written before `has_error` was kept (schema 2), before months were closed (3), before the billing policy of
events was kept (4), or their usage by observation and key (5), is brought up to date."""

from decimal import Decimal

import duckdb
import pytest

from billing_core.ledger.engine import BookingCounts
from billing_core.ledger.schema import LEARNED
from billing_core.types import GetUsageEventsParams
from tests.factories import EVERYONE, NOON, events_table, ledger_at, model_usage, service_over, usage_row

GROWN = {"tokens_in": 700, "tokens_total": 1100, "usage": [model_usage(input=700, output=400)]}
ADDED_TABLES = ("organization_directory", "limit_notices", "webhook_attempts", "anomaly_marks")
CLOSING_TABLES = ("closed_events", "closes", "imports", "imported_cards")
POLICY_TABLES = ("policies", "policy_facts")


def columns_of(path, table):
    with duckdb.connect(str(path)) as connection:
        return connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE {table})").fetchall()


def age(path, version=2):
    """Take out of the file what came after a schema version."""
    later = {2: ("has_error",), 3: ("accounted_at", "billed_elsewhere"), 4: ("named_customer_id", "policy"), 5: LEARNED}
    tables = {2: ADDED_TABLES, 3: CLOSING_TABLES, 4: POLICY_TABLES, 5: ()}
    with duckdb.connect(str(path)) as connection:
        for table in ("events", "event_revisions", "closed_events"):
            for column in (column for since, columns in later.items() if since >= version for column in columns):
                connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        for table in (table for since, names in tables.items() if since >= version for table in names):
            connection.execute(f"DROP TABLE {table}")
        connection.execute(f"UPDATE meta SET value = '{version}' WHERE name = 'schema_version'")


@pytest.fixture
def path(tmp_path):
    """Three events: one as first booked, one changed since (booking 2), one sent."""
    path = tmp_path / "billing.duckdb"
    ledger = ledger_at(path, [usage_row(id="quiet"), usage_row(id="grown"), usage_row(id="sent")])
    ledger.book(events_table([usage_row(id="grown", **GROWN)]), run_id="second")
    with ledger.engine.transaction() as writer:
        writer.update("events", {"id": "sent", "sync_status": "processed"}, key="id")
    ledger.engine.close()
    age(path)
    return path


@pytest.fixture
def ledger(path):
    made = ledger_at(path)
    yield made
    made.engine.close()


def state(ledger, table="events"):
    return ledger.engine.rows(f"SELECT id, has_error, tokens_in, revision, marks FROM {table} ORDER BY id")


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_it_gets_what_is_missing_and_looks_like_a_new_one(version, tmp_path):
    path = tmp_path / "old.duckdb"
    ledger_at(path, [usage_row()]).engine.close()
    age(path, version)
    ledger_at(path).engine.close()
    ledger_at(tmp_path / "new.duckdb").engine.close()
    for table in ("events", "event_revisions", *ADDED_TABLES, *CLOSING_TABLES, *POLICY_TABLES):
        assert columns_of(path, table) == columns_of(tmp_path / "new.duckdb", table)
    with duckdb.connect(str(path)) as connection:
        assert connection.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchall() == [("6",)]


def test_of_what_was_booked_before_errors_are_not_known(ledger):
    assert state(ledger) == [
        ("grown", None, 700, 2, ""), ("quiet", None, 600, 1, ""), ("sent", None, 600, 1, "")
    ]  # fmt: skip
    assert state(ledger, "event_revisions") == [("grown", None, 600, 1, "")]


def test_learning_of_an_error_later_changes_no_event_and_marks_nothing_for_correction(ledger):
    rows = [
        usage_row(id="quiet", has_error=True),
        usage_row(id="grown", **GROWN, has_error=False),
        usage_row(id="sent", has_error=True),
    ]
    before = state(ledger)
    assert ledger.book(events_table(rows), run_id="third") == BookingCounts(unchanged=3)
    assert state(ledger) == before


def test_a_change_of_another_kind_brings_the_knowledge_with_it(ledger):
    assert ledger.book(events_table([usage_row(id="quiet", **GROWN, has_error=True)]), run_id="third").changed == 1
    assert state(ledger)[1] == ("quiet", True, 700, 2, "")
    assert state(ledger, "event_revisions")[1] == ("quiet", None, 600, 1, "")


def test_new_events_are_booked_with_it(ledger):
    assert ledger.book(events_table([usage_row(id="new", has_error=True)]), run_id="third") == BookingCounts(new=1)
    assert state(ledger)[1] == ("new", True, 600, 1, "")


def test_every_state_it_ever_had_can_still_be_seen(path):
    """What was current and what was superseded come from two tables, whose columns must mean the same."""
    ledger = ledger_at(path)
    ledger.book(events_table([usage_row(id="quiet", **GROWN, has_error=True)]), run_id="third")
    ledger.engine.close()
    service = service_over(path)

    def seen(as_of):
        answer = service.get_usage_events(GetUsageEventsParams(as_of=as_of, sort="id", order="asc"), EVERYONE)
        assert {event.timestamp for event in answer.events} == {NOON}
        return [(event.id, event.tokens_in, event.rate_card_version, event.sync_status) for event in answer.events]

    card = seen(3)[0][2]
    assert seen(1) == [
        ("grown", 600, card, "pending"), ("quiet", 600, card, "pending"), ("sent", 600, card, "processed")
    ]  # fmt: skip
    assert seen(2) == [
        ("grown", 700, card, "pending"), ("quiet", 600, card, "pending"), ("sent", 600, card, "processed")
    ]  # fmt: skip
    assert seen(3)[1] == ("quiet", 700, card, "pending")
    service.close()


def test_pages_and_totals_go_on(path):
    service = service_over(path)
    answer = service.get_usage_events(GetUsageEventsParams(), EVERYONE)
    assert [event.id for event in answer.events] == ["grown", "quiet", "sent"]
    assert answer.totals.credits.total == Decimal("460")
    service.close()


LINE = {
    "model": "gpt-5", "name": "agent run", "type": "AGENT", "level": "DEFAULT", "key": "input", "quantity": 1000,
    "cost_usd": None, "repeats": False, "unpriced": False,
}  # fmt: skip


def test_reading_an_event_again_teaches_what_was_not_kept_without_changing_it(ledger):
    """Rating by observation, key and active time can then be asked of months that were read before."""
    again = {"active_seconds": Decimal(42), "usage_lines": [LINE]}
    counts = ledger.book(events_table([usage_row(id="quiet", **again)]), run_id="third")
    assert counts == BookingCounts(unchanged=1)
    learned = ledger.engine.rows("SELECT active_seconds, usage_lines, revision FROM events WHERE id = 'quiet'")
    assert learned == [(Decimal(42), [LINE], 1)]
    assert ledger.book(events_table([usage_row(id="quiet")]), run_id="fourth") == BookingCounts(unchanged=1)
    assert ledger.engine.rows("SELECT active_seconds FROM events WHERE id = 'quiet'") == [(Decimal(42),)]
    other = {"active_seconds": Decimal(40), "usage_lines": [LINE]}
    counts = ledger.book(events_table([usage_row(id="quiet", **other)]), run_id="fifth")
    assert counts == BookingCounts(changed=1)
