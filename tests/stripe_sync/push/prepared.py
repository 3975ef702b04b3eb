"""The pusher's queries, compiled once.

A push compiles its half a dozen queries anew, which costs more than everything else a push does with a small
ledger. Hundreds of pushes in a test cannot afford that. Here each query is compiled from the pusher's own
expression once, for times that nobody means, and those that are meant are put in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any
from unittest.mock import patch

from billing_core.ledger import duckdb_engine, sync
from billing_core.ledger.compiled import Compiled

__all__ = ["queries_compiled_once"]

SETTLED_BEFORE, SINCE = datetime(1998, 3, 4, 5, 6, 7, tzinfo=UTC), datetime(1999, 3, 4, 5, 6, 7, tzinfo=UTC)
MARKS = ("MAKE_TIMESTAMP(1998, 3, 4, 5, 6, 7.0)", "MAKE_TIMESTAMP(1999, 3, 4, 5, 6, 7.0)")

candidates, covered, carried = sync.candidates, sync.covered, sync.carried
revisions, open_intents = sync.revisions, sync.open_intents
compiled = duckdb_engine.compiled

BUILDERS: dict[str, Callable[[], Any]] = {
    "candidates": lambda: candidates(SETTLED_BEFORE),
    "first of candidates": lambda: candidates(SETTLED_BEFORE).limit(1),
    "covered": lambda: covered(candidates(SETTLED_BEFORE)),
    "carried": carried,
    "revisions": lambda: revisions(SINCE, candidates(SETTLED_BEFORE)),
    "open": open_intents,
    "first of open": lambda: open_intents().limit(1),
}


@cache
def compiled_query(name: str) -> Compiled:
    """A query with the marks in it."""
    return compiled(BUILDERS[name](), "duckdb")[0]


@dataclass(frozen=True)
class Prepared:
    """Stands for one of `BUILDERS` with other times."""

    name: str
    settled_before: datetime | None = None
    since: datetime | None = None

    def limit(self, rows: int) -> Prepared:
        """Only the first one is ever asked for."""
        assert rows == 1
        return replace(self, name=f"first of {self.name}")

    def compiled(self) -> Compiled:
        """The query as DuckDB gets it."""
        found = compiled_query(self.name)
        text = found.text
        for mark, time in zip(MARKS, (self.settled_before, self.since), strict=True):
            assert (mark in text) == (time is not None)
            if time is not None:
                plain = time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
                text = text.replace(mark, f"TIMESTAMP '{plain:%Y-%m-%d %H:%M:%S.%f}'")
        return replace(found, text=text)


@contextmanager
def queries_compiled_once() -> Iterator[None]:
    """Within, the pusher's queries are compiled at their first use only."""
    with (
        patch.object(sync, "candidates", lambda settled_before: Prepared("candidates", settled_before)),
        patch.object(sync, "covered", lambda events: replace(events, name="covered")),
        patch.object(sync, "carried", lambda: Prepared("carried")),
        patch.object(sync, "revisions", lambda since, events: replace(events, name="revisions", since=since)),
        patch.object(sync, "open_intents", lambda: Prepared("open")),
        patch.object(
            duckdb_engine,
            "compiled",
            lambda q, dialect: (q.compiled(), []) if isinstance(q, Prepared) else compiled(q, dialect),
        ),
    ):
        yield
