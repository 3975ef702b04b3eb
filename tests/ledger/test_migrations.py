"""Ledgers written by every earlier version are brought up to date, whole or not at all, and lose nothing."""

from decimal import Decimal
from itertools import chain
from pathlib import Path

import duckdb
import pytest

from billing_core.errors import WarehouseError
from billing_core.ledger import duckdb_migrations
from billing_core.ledger.duckdb_engine import DuckDBEngine
from billing_core.ledger.duckdb_migrations import MIGRATIONS, SCHEMA_VERSION
from billing_core.ledger.engine import BookingCounts
from billing_core.ledger.schema import CLOSED_COLUMNS, EVENT_COLUMNS, REVISION_COLUMNS, SYNC_TABLES
from billing_core.types import GetUsageEventsParams
from tests.factories import EVERYONE, NOON, events_table, ledger_at, model_usage, service_over, usage_row

GROWN = {"tokens_in": 700, "tokens_total": 1100, "usage": [model_usage(input=700, output=400)]}
SCHEMAS = {int(file.stem): file.read_text("utf-8") for file in (Path(__file__).parent / "schemas").glob("*.sql")}
"""What each version of the program made of an empty file: taken from ledgers those versions wrote, never edited."""


def tables_of(connection):
    return dict(connection.execute("SELECT table_name, sql FROM duckdb_tables() ORDER BY table_name").fetchall())


def columns_of(path, table):
    with duckdb.connect(str(path)) as connection:
        return connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE {table})").fetchall()


def age(path, version):
    """The file as that version of the program would have written it: its tables, and of each row what it kept."""
    new = path.with_suffix(".now")
    path.rename(new)
    with duckdb.connect(str(path)) as connection:
        connection.execute(SCHEMAS[version])
        old = {name: columns(connection, name) for name in tables_of(connection)}
        connection.execute(f"ATTACH '{new}' AS now (READ_ONLY)")
        for table, names in old.items():
            kept = ", ".join(f'"{name}"' for name in names)
            connection.execute(f"INSERT INTO {table} BY NAME SELECT {kept} FROM now.{table}")
        connection.execute("UPDATE meta SET value = ? WHERE name = 'schema_version'", [str(version)])
    new.unlink()


def columns(connection, table):
    return [name for (name,) in connection.execute(f"SELECT column_name FROM (DESCRIBE {table})").fetchall()]


@pytest.mark.parametrize("version", SCHEMAS)
def test_each_number_is_the_schema_that_version_wrote(version):
    with duckdb.connect() as made, duckdb.connect() as written:
        for statement in chain.from_iterable(MIGRATIONS[:version]):
            made.execute(statement)
        written.execute(SCHEMAS[version])
        assert tables_of(made) == tables_of(written)


def test_the_newest_number_is_known_and_is_what_the_program_reads_and_writes(tmp_path):
    assert max(SCHEMAS) == SCHEMA_VERSION, "add tests/ledger/schemas/N.sql for the new number"
    ledger_at(tmp_path / "new.duckdb").engine.close()
    for table, expected in (
        ("events", EVENT_COLUMNS),
        ("event_revisions", REVISION_COLUMNS),
        ("closed_events", CLOSED_COLUMNS),
        *SYNC_TABLES.items(),
    ):
        found = columns_of(tmp_path / "new.duckdb", table)
        assert [name for name, _ in found] == [column.name for column in expected]
        with duckdb.connect() as connection:
            body = ", ".join(f'"{column.name}" {column.duckdb}' for column in expected)
            connection.execute(f"CREATE TABLE t ({body})")
            assert found == connection.execute("SELECT column_name, column_type FROM (DESCRIBE t)").fetchall()


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_a_change_that_fails_leaves_the_ledger_as_it_was(version, tmp_path, monkeypatch):
    path = tmp_path / "old.duckdb"
    ledger_at(path, [usage_row()]).engine.close()
    age(path, version)
    with duckdb.connect(str(path)) as connection:
        before = tables_of(connection), connection.execute("SELECT * FROM meta ORDER BY name").fetchall()
    broken = (*MIGRATIONS[:-1], (*MIGRATIONS[-1], "SELECT error('the disk is full')"))
    monkeypatch.setattr(duckdb_migrations, "MIGRATIONS", broken)
    with pytest.raises(WarehouseError, match="the disk is full"):
        DuckDBEngine(path).rows("SELECT 1")
    with duckdb.connect(str(path)) as connection:
        assert (tables_of(connection), connection.execute("SELECT * FROM meta ORDER BY name").fetchall()) == before


@pytest.fixture
def path(tmp_path):
    """Three events: one as first booked, one changed since (booking 2), one sent."""
    path = tmp_path / "billing.duckdb"
    ledger = ledger_at(path, [usage_row(id="quiet"), usage_row(id="grown"), usage_row(id="sent")])
    ledger.book(events_table([usage_row(id="grown", **GROWN)]), run_id="second")
    with ledger.engine.transaction() as writer:
        writer.update("events", {"id": "sent", "sync_status": "processed"}, key="id")
    ledger.engine.close()
    age(path, 2)
    return path


@pytest.fixture
def ledger(path):
    made = ledger_at(path)
    yield made
    made.engine.close()


def state(ledger, table="events"):
    return ledger.engine.rows(f"SELECT id, has_error, tokens_in, revision, marks FROM {table} ORDER BY id")


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_an_older_ledger_is_brought_up_to_date_and_keeps_its_rows(version, tmp_path):
    path = tmp_path / "old.duckdb"
    ledger_at(path, [usage_row(id="a"), usage_row(id="b", customer_id=None)]).engine.close()
    age(path, version)
    with duckdb.connect(str(path)) as connection:
        names = ", ".join(f'"{name}"' for name in columns(connection, "events"))
        before = connection.execute(f"SELECT {names} FROM events ORDER BY id").fetchall()
    ledger_at(path).engine.close()
    ledger_at(tmp_path / "new.duckdb").engine.close()
    with duckdb.connect(str(path)) as old, duckdb.connect(str(tmp_path / "new.duckdb")) as new:
        assert tables_of(old) == tables_of(new)
        assert old.execute(f"SELECT {names} FROM events ORDER BY id").fetchall() == before
        found = old.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchall()
    assert found == [(str(SCHEMA_VERSION),)]


def test_of_what_was_booked_before_errors_are_not_known(ledger):
    assert state(ledger) == [("grown", None, 700, 2, ""), ("quiet", None, 600, 1, ""), ("sent", None, 600, 1, "")]
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
        ("grown", 600, card, "pending"),
        ("quiet", 600, card, "pending"),
        ("sent", 600, card, "processed"),
    ]
    assert seen(2) == [
        ("grown", 700, card, "pending"),
        ("quiet", 600, card, "pending"),
        ("sent", 600, card, "processed"),
    ]
    assert seen(3)[1] == ("quiet", 700, card, "pending")
    service.close()


def test_pages_and_totals_go_on(path):
    service = service_over(path)
    answer = service.get_usage_events(GetUsageEventsParams(), EVERYONE)
    assert [event.id for event in answer.events] == ["grown", "quiet", "sent"]
    assert answer.totals.credits.total == Decimal("460")
    service.close()


LINE = {
    "model": "gpt-5",
    "name": "agent run",
    "type": "AGENT",
    "level": "DEFAULT",
    "key": "input",
    "quantity": 1000,
    "cost_usd": None,
    "repeats": False,
    "unpriced": False,
}


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
