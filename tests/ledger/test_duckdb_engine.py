from datetime import timedelta
from decimal import Decimal

import duckdb
import pytest

from billing_core.errors import WarehouseError
from billing_core.ledger.duckdb_engine import DuckDBEngine
from billing_core.ledger.engine import BookingCounts
from billing_core.ledger.journal import Ledger
from tests.factories import NOON, events_table, ledger_at, model_usage, usage_row

GROWN = {"tokens_in": 700, "tokens_total": 1100, "usage": [model_usage(input=700, output=400)]}


@pytest.fixture
def ledger(tmp_path):
    made = ledger_at(tmp_path / "billing.duckdb")
    yield made
    made.engine.close()


def book(ledger: Ledger, *rows, run="run"):
    return ledger.book(events_table(rows), run_id=run)


def one(ledger, columns, table="events"):
    return ledger.engine.rows(f"SELECT {columns} FROM {table} ORDER BY revision")


def mark(ledger, status):
    with ledger.engine.transaction() as writer:
        writer.update("events", {"id": "trace-1", "sync_status": status, "meter_event_identifier": "m-1"}, key="id")


def test_booking_twice_changes_nothing(ledger):
    assert book(ledger, usage_row()) == BookingCounts(new=1)
    version = ledger.version()
    assert book(ledger, usage_row()) == BookingCounts(unchanged=1)
    assert ledger.version() == version


def test_a_changed_event_becomes_a_revision_that_says_what_changed(ledger):
    book(ledger, usage_row(), run="first")
    assert book(ledger, usage_row(**GROWN), run="second") == BookingCounts(changed=1)
    assert one(ledger, "revision, tokens_in, credits_ai_tokens, run_id") == [(2, 700, Decimal(110), "second")]
    assert one(ledger, "revision, tokens_in, changed_columns", "event_revisions") == [
        (1, 600, "tokens_in,tokens_total,credits_ai_tokens,credits_total,usage")
    ]


def test_an_older_state_read_late_never_replaces_a_newer_one(ledger):
    book(ledger, usage_row(updated_at=NOON + timedelta(hours=2)))
    assert book(ledger, usage_row(**GROWN, updated_at=NOON + timedelta(hours=1))) == BookingCounts(unchanged=1)
    assert book(ledger, usage_row(**GROWN, updated_at=NOON + timedelta(hours=2))) == BookingCounts(changed=1)
    assert book(ledger, usage_row()) == BookingCounts(changed=1), "without a version a change is believed"


def test_other_wording_of_a_problem_or_another_host_is_not_a_change(ledger):
    book(ledger, usage_row())
    assert book(ledger, usage_row(trace_base="http://elsewhere/", problems=["x"], metadata='{"a":1}')).unchanged == 1


def test_an_error_that_was_known_not_to_be_there_is_a_change(ledger):
    book(ledger, usage_row(has_error=False))
    mark(ledger, "processed")
    assert book(ledger, usage_row(has_error=True)) == BookingCounts(changed=1)
    assert one(ledger, "has_error, marks") == [(True, "changed_after_sending")]
    assert one(ledger, "has_error, changed_columns", "event_revisions") == [(False, "has_error")]


@pytest.mark.parametrize(("known", "read_again"), [(None, True), (None, False), (True, None), (False, None)])
def test_to_learn_of_errors_or_to_be_told_nothing_about_them_is_no_change(ledger, known, read_again):
    book(ledger, usage_row(has_error=known))
    mark(ledger, "processed")
    assert book(ledger, usage_row(has_error=read_again)) == BookingCounts(unchanged=1)
    assert one(ledger, "has_error, marks") == [(known, "")]


def test_what_was_sent_stays_and_the_change_is_marked_for_correction(ledger):
    book(ledger, usage_row())
    mark(ledger, "processed")
    book(ledger, usage_row(**GROWN))
    assert one(ledger, "sync_status, meter_event_identifier, marks, credits_ai_tokens") == [
        ("processed", "m-1", "changed_after_sending", Decimal(110))
    ]
    assert one(ledger, "sync_status, credits_ai_tokens", "event_revisions") == [("processed", Decimal(100))]


def test_a_second_change_after_sending_is_marked_once(ledger):
    book(ledger, usage_row())
    mark(ledger, "confirmed")
    book(ledger, usage_row(**GROWN))
    book(ledger, usage_row())
    assert one(ledger, "sync_status, marks, revision") == [("confirmed", "changed_after_sending", 3)]


def test_an_unsent_event_follows_its_new_facts(ledger):
    book(ledger, usage_row(customer_id=None))
    book(ledger, usage_row())
    assert one(ledger, "sync_status, sync_error, marks, flags") == [("pending", None, "", "")]


def test_a_changed_record_of_the_earlier_system_is_not_a_correction(ledger):
    book(ledger, usage_row(legacy_status="processed", legacy_total=Decimal(5)))
    book(ledger, usage_row(legacy_status="processed", legacy_total=Decimal(6)))
    assert one(ledger, "sync_status, marks, credits_total") == [("processed", "", Decimal(6))]


def test_what_the_earlier_system_billed_stays_processed_even_if_its_mark_vanishes(ledger):
    book(ledger, usage_row(legacy_status="processed", legacy_total=Decimal(5)))
    book(ledger, usage_row())
    assert one(ledger, "sync_status, marks") == [("processed", "changed_after_sending")]


def test_an_exception_rolls_everything_back(ledger):
    def booked_and_failed():
        with ledger.engine.transaction() as writer:
            writer.book(events_table([usage_row()]), run_id="run")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        booked_and_failed()
    assert ledger.engine.rows("SELECT count(*) FROM events") == [(0,)]
    assert ledger.version() == 0


def test_events_lie_in_time_order(ledger):
    book(ledger, *(usage_row(id=str(n), timestamp=NOON - timedelta(minutes=n)) for n in range(5)))
    assert [row[0] for row in ledger.engine.rows("SELECT id FROM events")] == ["4", "3", "2", "1", "0"]


def test_a_file_that_is_no_ledger_is_one_line(tmp_path):
    path = tmp_path / "billing.duckdb"
    path.write_text("this is not a database" * 1000)
    with pytest.raises(WarehouseError, match=r"billing\.duckdb") as caught:
        DuckDBEngine(path).rows("SELECT 1")
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WarehouseError, match=r"billing\.duckdb"):
        DuckDBEngine(tmp_path / "file" / "billing.duckdb").rows("SELECT 1")


def test_a_ledger_of_a_later_version_is_refused(tmp_path):
    path = tmp_path / "billing.duckdb"
    ledger_at(path).engine.close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE name = 'schema_version'")
    with pytest.raises(WarehouseError, match="later version"):
        DuckDBEngine(path).rows("SELECT 1")


def test_a_mistake_in_a_query_is_not_disguised_as_an_outage(ledger):
    with pytest.raises(duckdb.Error):
        ledger.engine.rows("SELECT nothing FROM nowhere")
