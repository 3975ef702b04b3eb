"""The embedded ledger's engine: one DuckDB file.

Traps this file knows (reference/engines.md): no primary key (it doubles the file and triples loading), so
uniqueness is kept by the writer; rows are inserted in time order; a second process cannot open the file, so
processes take turns (`process_lock.py`); Ibis only compiles, DuckDB's own cursor runs and returns Arrow: through `sql`,
because `execute(…).to_arrow_table()` was seen to hang in 1.5 on a long union. Values of a question are bound to a
variable of the cursor: `sql` with parameters takes ten times as long for a large answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from billing_core.errors import WarehouseError
from billing_core.ledger.compiled import VARIABLE, Compiled, Question, compiled
from billing_core.ledger.duckdb_migrations import SCHEMA_VERSION, statements_since
from billing_core.ledger.engine import BookingCounts, Still
from billing_core.ledger.late_usage import carry_over
from billing_core.ledger.place import is_missing, remove
from billing_core.ledger.process_lock import PATIENCE_SECONDS, Lease
from billing_core.ledger.schema import (
    COMPARED,
    COMPARED_IF_KNOWN,
    EVENT_COLUMNS,
    FLAG_SEPARATOR,
    LEARNED,
    SENT,
    UNDONE,
    Column,
    stored,
    without_offsets,
)
from billing_core.ledger.settlements import show_settled
from billing_core.runtime.clock import Clock, now
from billing_core.runtime.faults import of_engine
from billing_core.runtime.private_files import FILE, keep_private
from billing_core.types import Flag

MEMORY_LIMIT = "4GB"
RETRY_SECONDS = 0.05


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _names(columns: Sequence[Column], table: str = "") -> str:
    return ", ".join(f"{table}{_quoted(column.name)}" for column in columns)


class DuckDBEngine:
    """The engine of a ledger in one DuckDB file; see `billing_core.ledger.engine.Engine`. One per file and process."""

    def __init__(self, path: Path, *, patience_seconds: float = PATIENCE_SECONDS, clock: Clock = now) -> None:
        self._path = path
        self._clock = clock
        self._patience = patience_seconds
        self._lease = Lease(path, self._disconnect, patience_seconds)
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._opening = threading.Lock()
        self._writing = threading.Lock()
        keep_private()  # DuckDB asks nobody with which mode it creates the ledger, its log and its temporary files

    def read(self, question: Question, given: Mapping[str, pa.Table] | None = None) -> pa.Table:
        """Answer a question; decimals and UTC times come back as stored.

        The tables of `given` exist for this read only: a cursor's views are its own and end with it.
        """
        with self._cursor() as cursor:
            for name, rows in (given or {}).items():
                cursor.register(name, without_offsets(rows))
            return cursor.sql(_bound_to(cursor, question).text).to_arrow_table()

    def differing(self, events: pa.Table) -> pa.Table:
        """Ids of those of `events` that are in the ledger with other values; see `Engine.differing`."""
        with self._cursor() as cursor:
            return _differing(cursor, events)

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a fixed SQL query with bound values."""
        with self._cursor() as cursor:
            return cursor.execute(query, [_bound(v) for v in values]).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[_Writer]:
        """One transaction: everything in it is written, or nothing. Writers of this process take turns; those of other
        processes through the lease.
        """
        with self._writing, self._cursor() as cursor:
            cursor.begin()
            try:
                yield _Writer(cursor, self._clock)
            except BaseException:
                with suppress(duckdb.Error):  # what broke it says more than that there is nothing to roll back any more
                    cursor.rollback()
                raise
            cursor.commit()

    @contextmanager
    def still(self) -> Iterator[Still]:
        """The ledger's files while nobody writes, for a copy of them; see `Engine.still`. The file is closed meanwhile,
        its log written into it or, on a full disk, beside it.
        """
        with self._writing, self._lease.using():
            with self._cursor() as cursor:
                tables = table_rows(cursor)
                with suppress(duckdb.Error):
                    cursor.execute("CHECKPOINT")
            with self._opening:
                self._let_go()
                yield Still(tables)

    def close(self) -> None:
        """Close the ledger file once running statements are done; the next use opens it again."""
        self._lease.release()

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with ExitStack() as stack:
            try:
                stack.enter_context(self._lease.using())
                cursor = self._open().cursor()
            except OSError as error:
                raise WarehouseError(f"the ledger {self._path}: {error.strerror or error}") from error
            except duckdb.Error as error:
                raise self._failed(error) from error
            stack.callback(cursor.close)
            try:
                yield cursor
            except duckdb.ProgrammingError:
                raise  # a mistake of ours is no outage
            except duckdb.Error as error:
                raise self._failed(error) from error

    def _failed(self, error: duckdb.Error) -> WarehouseError:
        """What broke, as the caller reads it. After some faults DuckDB answers nothing more until it is opened anew."""
        if isinstance(error, (duckdb.FatalException, duckdb.InternalException)):
            self._disconnect()
        return WarehouseError(f"the ledger {self._path}: {of_engine(error)[:300]}")

    def _open(self) -> duckdb.DuckDBPyConnection:
        with self._opening:
            if self._connection is None:
                connection = self._connect()
                try:
                    _prepare(connection, self._path)
                except BaseException:
                    connection.close()
                    raise
                self._connection = connection
            return self._connection

    def _connect(self) -> duckdb.DuckDBPyConnection:
        """Open the file; a program that does not take turns (a database browser, say) is waited for."""
        deadline = time.monotonic() + self._patience
        if is_missing(self._path):
            self._create()
        while True:
            try:
                return duckdb.connect(str(self._path), config=self._config)
            except duckdb.IOException as error:
                if "lock" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_SECONDS)

    @property
    def _config(self) -> dict[str, str | bool | int | float | list[str]]:
        return {
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": f"{self._path}.tmp",
            "autoinstall_known_extensions": "false",  # nothing is ever downloaded behind anybody's back
        }

    def _create(self) -> None:
        """A new ledger, under its name only once it is one: a full disk or a kill leaves nothing that cannot be opened.

        The caller holds the lease.
        """
        draft = self._path.with_name(self._path.name + ".new")
        remove(draft)
        try:
            with closing(duckdb.connect(str(draft), config=self._config)) as connection:
                _prepare(connection, self._path)
            draft.chmod(FILE)
            draft.replace(self._path)
        except BaseException:
            with suppress(OSError):
                remove(draft)
            raise

    def _disconnect(self) -> None:
        with self._opening:
            self._let_go()

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def table_rows(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, int]]:
    """Every table of the ledger and how many rows it has, by name."""
    query = "SELECT table_name FROM duckdb_tables() WHERE NOT internal AND NOT temporary ORDER BY table_name"
    names = [name for (name,) in connection.execute(query).fetchall()]
    return [(name, connection.execute(f"SELECT count(*) FROM {_quoted(name)}").fetchall()[0][0]) for name in names]


def _prepare(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Make the schema changes the ledger lacks; refuse a ledger of a later version, and what is no ledger."""
    version = _schema_of(connection, path)
    if version > SCHEMA_VERSION:
        raise WarehouseError(
            f"the ledger {path} was written by a later version (schema {version}, this one knows "
            f"{SCHEMA_VERSION}); update the program"
        )
    if version < SCHEMA_VERSION:
        connection.begin()
        connection.execute(";\n".join(statements_since(version)))  # one by one they take half as long again
        connection.commit()


def _schema_of(connection: duckdb.DuckDBPyConnection, path: Path) -> int:
    """The number of the last schema change made; 0 in an empty file."""
    names = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if not names:
        return 0
    if "meta" in names:
        found = connection.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone()
        if found and str(found[0]).isdecimal():
            return int(found[0])
    raise WarehouseError(f"the ledger {path} is the database of another program; name another file")


class _Writer:
    """See `billing_core.ledger.engine.Writer`."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, clock: Clock) -> None:
        self._cursor = cursor
        self.clock = clock

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._cursor.execute(query, [_bound(v) for v in values]).fetchall()

    def read(self, question: Question, given: Mapping[str, pa.Table] | None = None) -> pa.Table:
        named = given or {}
        try:
            for name, rows in named.items():
                self._cursor.register(name, without_offsets(rows))
            return self._cursor.sql(_bound_to(self._cursor, question).text).to_arrow_table()
        finally:
            for name in named:
                self._cursor.unregister(name)

    def differing(self, events: pa.Table) -> pa.Table:
        return _differing(self._cursor, events)

    def append(self, table: str, rows: pa.Table) -> None:
        names = ", ".join(map(_quoted, rows.column_names))
        with self._given(rows):
            self._cursor.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM given")

    def append_from(self, table: str, question: Question) -> None:
        query = _bound_to(self._cursor, question)
        self._cursor.execute(f"INSERT INTO {table} ({', '.join(map(_quoted, query.columns))}) {query.text}")

    def amend(self, table: str, rows: pa.Table, *, key: str, unless: str | None = None) -> None:
        spared = "" if unless is None else f" AND NOT coalesce({table}.{_quoted(unless)}, false)"
        changes = ", ".join(f"{_quoted(n)} = given.{_quoted(n)}" for n in rows.column_names if n != key)
        with self._given(rows):
            self._cursor.execute(
                f"UPDATE {table} SET {changes} FROM given WHERE {table}.{_quoted(key)} = given.{_quoted(key)}{spared}"
            )

    def advance(self, run_id: str) -> None:
        self._cursor.execute(
            """INSERT INTO bookings SELECT coalesce(max(seq), 0) + 1, ?, ?, 0, 0, 0 FROM bookings""",
            [_bound(self.clock()), run_id],
        )

    @contextmanager
    def _given(self, rows: pa.Table) -> Iterator[None]:
        """Arrow rows as the view `given`; their times are UTC and stored without an offset."""
        self._cursor.register("given", without_offsets(rows))
        try:
            yield
        finally:
            self._cursor.unregister("given")

    def insert(self, table: str, row: Mapping[str, Any]) -> None:
        names = ", ".join(map(_quoted, row))
        self._cursor.execute(
            f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(row))})", [_bound(v) for v in row.values()]
        )

    def update(self, table: str, row: Mapping[str, Any], *, key: str) -> None:
        names = [name for name in row if name != key]
        assignments = ", ".join(f"{_quoted(name)} = ?" for name in names)
        values = [_bound(row[name]) for name in (*names, key)]
        self._cursor.execute(f"UPDATE {table} SET {assignments} WHERE {_quoted(key)} = ?", values)

    def book(self, events: pa.Table, *, run_id: str, imported: pa.Table | None = None) -> BookingCounts:
        cursor = self._cursor
        seq = cursor.execute("SELECT coalesce(max(seq), 0) + 1 FROM bookings").fetchall()[0][0]
        now = self.clock().replace(tzinfo=None)
        # Found by their names, in this very frame. What is registered would be held until the transaction ends.
        incoming = stored(events)  # noqa: F841
        if imported is not None:
            imported = without_offsets(imported)
        cursor.execute(_MATCHED)
        matched, changed, moved, remarked = cursor.execute(_COUNTED).fetchall()[0]
        counts = BookingCounts(events.num_rows - matched, changed, matched - changed)
        if changed:
            cursor.execute(_KEEP_REVISIONS, [seq, now])
            cursor.execute(_REMOVE_CHANGED)
        if counts.unchanged:
            cursor.execute(_LEARN)
        if counts.new or changed:
            cursor.execute(_INSERT if imported is None else _INSERT_IMPORTED, {"seq": seq, "now": now, "run": run_id})
            carry_over(self, seq=seq, now=now)
            if changed:
                show_settled(self)
            self.insert(
                "bookings",
                {
                    "seq": seq,
                    "booked_at": now,
                    "run_id": run_id,
                    "events_new": counts.new,
                    "events_changed": counts.changed,
                    "events_unchanged": counts.unchanged,
                },
            )
        if moved:
            cursor.execute(_NAME_POLICY)
        if remarked:
            cursor.execute(_MARK_POLICY)
            if not (counts.new or changed):
                self.advance(run_id)
        cursor.execute("DROP TABLE matched")
        return counts


_SENT_LIST = ", ".join(f"'{status}'" for status in SENT)
_WAS_SENT = f"m.old_status IN ({_SENT_LIST})"
_BILLED_ELSEWHERE = """contains(m.old_flags, 'legacy_billed') AND contains(i.flags, 'legacy_billed')
OR coalesce(m.old_billed_elsewhere, false)"""
"""By the earlier system, or by whatever an import came from: there is nothing here to correct."""

_DIFFERENCES = ", ".join(
    f"CASE WHEN e.{_quoted(name)} {'<>' if name in COMPARED_IF_KNOWN else 'IS DISTINCT FROM'} i.{_quoted(name)} "
    f"THEN '{name}' END"
    for name in COMPARED
)

_CHANGED_COLUMNS = f"""CASE WHEN i.updated_at < e.updated_at THEN []
            ELSE list_filter([{_DIFFERENCES}], lambda name: name IS NOT NULL) END"""
"""An older state, read late, changes nothing: what is known is newer."""

_MATCHED = f"""
CREATE OR REPLACE TEMP TABLE matched AS
SELECT e.id, e.seq AS old_seq, e.revision AS old_revision, e.sync_status AS old_status, e.sync_error AS old_error,
       e.flags AS old_flags, e.marks AS old_marks, e.meter_event_identifier AS old_identifier,
       e.synced_at AS old_synced_at, e.accounted_at AS old_accounted_at, e.billed_elsewhere AS old_billed_elsewhere,
       e.policy AS old_policy, e.named_customer_id AS old_named_customer_id,
       {_CHANGED_COLUMNS} AS changed_columns, coalesce(i.updated_at < e.updated_at, false) AS is_older,
       NOT is_older AND i.policy IS NOT NULL AND len(changed_columns) = 0
           AND (i.policy, i.named_customer_id) IS DISTINCT FROM (e.policy, e.named_customer_id) AS is_moved,
       NOT is_older AND i.policy_differs <> contains(coalesce(e.marks, ''), '{Flag.POLICY_DIFFERS}') AS is_remarked
FROM events e JOIN incoming i USING (id)
"""

_COUNTED = """SELECT count(*), count(*) FILTER (len(changed_columns) > 0), count(*) FILTER (is_moved),
                     count(*) FILTER (is_remarked) FROM matched"""

_NAME_POLICY = """UPDATE events SET policy = i.policy, named_customer_id = i.named_customer_id
                  FROM incoming i JOIN matched m USING (id) WHERE events.id = i.id AND m.is_moved"""
"""An event that is the same under another policy is one of that policy from now on."""

_MARK_POLICY = f"""
UPDATE events SET marks = array_to_string(list_filter(list_append(
           list_filter(string_split(coalesce(marks, ''), '{FLAG_SEPARATOR}'), lambda m: m <> '{Flag.POLICY_DIFFERS}'),
           CASE WHEN i.policy_differs THEN '{Flag.POLICY_DIFFERS}' ELSE '' END), lambda m: m <> ''), '{FLAG_SEPARATOR}')
FROM incoming i JOIN matched m USING (id) WHERE events.id = i.id AND m.is_remarked
"""

_KEEP_REVISIONS = f"""
INSERT INTO event_revisions ({_names(EVENT_COLUMNS)}, superseded_seq, superseded_at, changed_columns)
SELECT {_names(EVENT_COLUMNS, "e.")}, ?, ?, array_to_string(m.changed_columns, '{FLAG_SEPARATOR}')
FROM events e JOIN matched m USING (id) WHERE len(m.changed_columns) > 0
"""

_LEARN = f"""
UPDATE events SET {", ".join(f"{name} = i.{name}" for name in LEARNED)}
FROM incoming i JOIN matched m ON m.id = i.id
WHERE events.id = i.id AND len(m.changed_columns) = 0
  AND ({" OR ".join(f"(events.{name} IS NULL AND i.{name} IS NOT NULL)" for name in LEARNED)})
  AND NOT coalesce(i.updated_at < events.updated_at, false)
"""

_REMOVE_CHANGED = "DELETE FROM events WHERE id IN (SELECT id FROM matched WHERE len(changed_columns) > 0)"

_KEPT = {
    "sync_status": "old_status",
    "sync_error": "old_error",
    "meter_event_identifier": "old_identifier",
    "synced_at": "old_synced_at",
}
"""What was sent stays as it was: these follow the old row once an event is on its way to Stripe."""


def _inserted(column: Column, came: str | None = None) -> str:
    """The value of a column of a booked row; `came` is the table that says how far new events got before."""
    name = column.name
    before = "NULL" if came is None else f"{came}.{_quoted(name)}"
    if name in _KEPT:
        fresh = f"i.{_quoted(name)}" if name in {"sync_status", "sync_error"} else before
        return f"CASE WHEN {_WAS_SENT} THEN m.{_KEPT[name]} ELSE {fresh} END"
    if name == "marks":
        mark = "changed_after_sending"
        return (
            f"CASE WHEN {_WAS_SENT} AND NOT ({_BILLED_ELSEWHERE}) AND NOT contains(m.old_marks, '{mark}') "
            f"THEN concat_ws('{FLAG_SEPARATOR}', nullif(m.old_marks, ''), '{mark}') "
            f"ELSE coalesce(m.old_marks, {before}, '') END"
        )
    own = {
        "seq": "$seq",
        "revision": "coalesce(m.old_revision, gone.revision, 0) + 1",
        "booked_at": "$now",
        "run_id": "$run",
        "policy": "coalesce(i.policy, m.old_policy)",
        "named_customer_id": "CASE WHEN i.policy IS NULL THEN m.old_named_customer_id ELSE i.named_customer_id END",
        "accounted_at": "m.old_accounted_at",
        "billed_elsewhere": f"coalesce(m.old_billed_elsewhere, {before})",
    }
    return own.get(name, f"i.{_quoted(name)}")


_GONE = f"""SELECT id, max(revision) AS revision FROM event_revisions WHERE changed_columns = '{UNDONE}' GROUP BY id"""
"""Events that left because an import was undone: coming back, they go on counting where they left off."""


def _insertion(came: str | None = None) -> str:
    join = "" if came is None else f"LEFT JOIN {came} ON {came}.id = i.id"
    return f"""
        INSERT INTO events ({_names(EVENT_COLUMNS)})
        SELECT {", ".join(_inserted(c, came) for c in EVENT_COLUMNS)}
        FROM incoming i LEFT JOIN matched m ON m.id = i.id LEFT JOIN ({_GONE}) gone ON gone.id = i.id {join}
        WHERE m.id IS NULL OR len(m.changed_columns) > 0
        ORDER BY i."timestamp", i.id
    """


_INSERT, _INSERT_IMPORTED = _insertion(), _insertion("imported")


def _differing(cursor: duckdb.DuckDBPyConnection, events: pa.Table) -> pa.Table:
    incoming = stored(events)  # noqa: F841  (found by its name, as in `_Writer.book`)
    query = f"SELECT id FROM events e JOIN incoming i USING (id) WHERE len({_CHANGED_COLUMNS}) > 0"
    return cursor.sql(query).to_arrow_table()


def _bound_to(cursor: duckdb.DuckDBPyConnection, question: Question) -> Compiled:
    """A question's SQL; its values are in the cursor's variable until the next question."""
    query, values = compiled(question, "duckdb")
    if values:
        named = ", ".join(f"p{place}: ${place + 1}" for place in range(len(values)))
        cursor.execute(f"SET VARIABLE {VARIABLE} = {{{named}}}", values)
    return query


def _bound(value: Any) -> Any:
    """Aware times go in as the UTC they stand for."""
    return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) and value.tzinfo else value
