"""The interface between the ledger and the database engine below it.

Reads are questions (`compiled.py`): Ibis expressions, compiled once per shape for the engine's dialect, and their
values. Writes differ too much between engines to be shared: each engine has one file with the few statements the
ledger needs. DuckDB is the only one so far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from billing_core.ledger.compiled import Question
from billing_core.runtime.clock import Clock

Rows = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]
"""`Engine.rows`, or `Writer.rows` inside a transaction."""


@dataclass(frozen=True, slots=True)
class BookingCounts:
    """The result of one booking: how many events were new, changed or unchanged."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0

    @property
    def total(self) -> int:
        """How many events the booking compared with the ledger."""
        return self.new + self.changed + self.unchanged

    def __add__(self, other: BookingCounts) -> BookingCounts:
        return BookingCounts(self.new + other.new, self.changed + other.changed, self.unchanged + other.unchanged)


class Writer(Protocol):
    """One open transaction on the ledger: everything in it is written, or nothing."""

    @property
    def clock(self) -> Clock:
        """The clock the ledger takes the present time from."""

    def book(self, events: pa.Table, *, run_id: str, imported: pa.Table | None = None) -> BookingCounts:
        """Book events: insert new ones, leave equal ones alone, keep a revision of changed ones.

        `imported` says how far new events got before they came here, for those it names: id, meter_event_identifier,
        synced_at, marks, billed_elsewhere.
        """

    def insert(self, table: str, row: Mapping[str, Any]) -> None:
        """Append one row to a journal table."""

    def update(self, table: str, row: Mapping[str, Any], *, key: str) -> None:
        """Change the one row whose `key` equals `row[key]` (run log and settings only, never events)."""

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a fixed SQL query, read inside the transaction."""

    def read(self, question: Question, given: Mapping[str, pa.Table] | None = None) -> pa.Table:
        """The answer to a question inside the transaction, over tables `given` by name for this one read as well."""

    def differing(self, events: pa.Table) -> pa.Table:
        """See `Engine.differing`, inside the transaction."""

    def append(self, table: str, rows: pa.Table) -> None:
        """Append many rows to a table; columns not given stay null."""

    def append_from(self, table: str, question: Question) -> None:
        """Append the answer to a question to a table, column by name, without it leaving the engine."""

    def amend(self, table: str, rows: pa.Table, *, key: str, unless: str | None = None) -> None:
        """Set the given columns of every row whose `key` is among `rows` (sync state only, never what was used).

        Rows whose column `unless` is true are left alone.
        """

    def advance(self, run_id: str) -> None:
        """Count one change of what people see (a new booking number), so that cached answers are asked anew."""


@dataclass(frozen=True, slots=True)
class Still:
    """The ledger at one moment: each table and how many rows it has."""

    tables: list[tuple[str, int]]


class Engine(Protocol):
    """The database the ledger is stored in. Thread-safe."""

    def read(self, question: Question, given: Mapping[str, pa.Table] | None = None) -> pa.Table:
        """The answer to a question about the ledger's tables, and those `given` by name for this one read."""

    def differing(self, events: pa.Table) -> pa.Table:
        """Ids of those of `events` (`EVENT_SCHEMA`) that are in the ledger and that `Writer.book` would change."""

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a small fixed SQL query on the journal tables."""

    def transaction(self) -> AbstractContextManager[Writer]:
        """One transaction on the ledger; an exception rolls it back."""

    def still(self) -> AbstractContextManager[Still]:
        """The ledger's files while nobody writes, complete on disk: for a copy of them."""

    def close(self) -> None:
        """Close the ledger's database."""
