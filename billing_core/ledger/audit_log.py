"""Reads the audit log, filtered, page by page or whole; entries are written by `journal`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from billing_core.errors import BadParameter
from billing_core.ledger.engine import Engine

COLUMNS = ("seq", "happened_at", "actor", "action", "detail", "previous_hash", "hash")
READ_AT_ONCE = 20_000
"""Entries per read while the log leaves as a file."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry of the audit log: number from 1, when (aware UTC), who, what, and the circumstances as JSON text."""

    seq: int
    happened_at: datetime
    actor: str
    action: str
    detail: str
    previous_hash: str
    hash: str


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """A filter of audit entries: actors, actions, `[start, end)` (aware), a `search`, up to number `newest`."""

    actor: tuple[str, ...] = ()
    action: tuple[str, ...] = ()
    start: datetime | None = None
    end: datetime | None = None
    search: str | None = None
    newest: int | None = None


class AuditLog:
    """Reads the audit log, the table `audit`."""

    def __init__(self, engine: Engine) -> None:
        self._rows = engine.rows

    def newest(self) -> int:
        """Number of the newest audit entry; 0 in an empty log."""
        return int(self._rows("SELECT coalesce(max(seq), 0) FROM audit")[0][0])

    def hash_of(self, seq: int) -> str | None:
        """The hash of the audit entry with a number; `None` if there is no such entry."""
        found: str | None = self._rows("SELECT max(hash) FROM audit WHERE seq = ?", [seq])[0][0]
        return found

    def details(self, action: str) -> list[dict[str, Any]]:
        """The circumstances (decoded JSON) of every entry of one action, oldest first."""
        rows = self._rows("SELECT detail FROM audit WHERE action = ? ORDER BY seq", [action])
        return [json.loads(text) for (text,) in rows]

    def newest_of(self, *actions: str, limit: int = 1) -> tuple[AuditEntry, ...]:
        """The newest audit entries of some actions, newest first."""
        return self._entries("action IN (SELECT unnest(?)) ORDER BY seq DESC LIMIT ?", [list(actions), limit])

    def values(self, column: str) -> tuple[str, ...]:
        """Every actor, or every action, that occurs in the audit log."""
        return tuple(row[0] for row in self._rows(f"SELECT DISTINCT {column} FROM audit ORDER BY 1"))

    def count(self, chosen: AuditFilter) -> int:
        """How many audit entries match a filter."""
        where, values = _conditions(chosen)
        return int(self._rows(f"SELECT count(*) FROM audit WHERE {where}", values)[0][0])

    def page(self, chosen: AuditFilter, limit: int, offset: int) -> tuple[tuple[AuditEntry, ...], int]:
        """One page of the audit entries that match a filter, newest first, and how many match in all."""
        where, values = _conditions(chosen)
        found = f"""WITH found AS MATERIALIZED (SELECT seq FROM audit WHERE {where}),
                    shown AS (SELECT seq FROM found ORDER BY seq DESC LIMIT ? OFFSET ?)
                    SELECT (SELECT count(*) FROM found), (SELECT list(seq) FROM shown)"""
        total, shown = self._rows(found, [*values, limit, offset])[0]
        entries = self._entries("seq IN (SELECT unnest(?)) ORDER BY seq DESC", [shown]) if shown else ()
        return entries, total

    def every(self, chosen: AuditFilter) -> Iterator[AuditEntry]:
        """All audit entries that match a filter, by number, read in parts; both of two with one number."""
        where, values = _conditions(chosen)
        seen = 0
        while entries := self._entries(f"{where} ORDER BY seq, hash LIMIT {READ_AT_ONCE} OFFSET ?", [*values, seen]):
            yield from entries
            seen += len(entries)

    def _entries(self, rest: str, values: Sequence[Any]) -> tuple[AuditEntry, ...]:
        rows = self._rows(f"SELECT {', '.join(COLUMNS)} FROM audit WHERE {rest}", values)
        return tuple(AuditEntry(seq, at.replace(tzinfo=UTC), *texts) for seq, at, *texts in rows)


def _conditions(chosen: AuditFilter) -> tuple[str, list[Any]]:
    texts = ["TRUE"]
    values: list[Any] = []
    for condition, value in (
        ("actor IN (SELECT unnest(?))", list(chosen.actor) or None),
        ("action IN (SELECT unnest(?))", list(chosen.action) or None),
        ("happened_at >= ?", chosen.start),
        ("happened_at < ?", chosen.end),
        ("seq <= ?", chosen.newest),
    ):
        if value is not None:
            texts.append(condition)
            values.append(value)
    if chosen.search and (wanted := chosen.search.strip()):
        text, needles = _mentions(wanted)
        texts.append(text)
        values += needles
    return " AND ".join(texts), values


def _mentions(wanted: str) -> tuple[str, list[str]]:
    """The condition that an entry mentions a text, case-blind, and its values.

    The circumstances are JSON: a text in them may be written with numbers in place of letters beyond ASCII, and those
    of small letters are not those of capitals. So it is looked for as it is and as JSON writes it.
    """
    if "\0" in wanted:
        raise BadParameter("search", wanted, "text without NUL characters")
    written = {json.dumps(form)[1:-1].lower() for form in (wanted, wanted.lower(), wanted.upper())} | {wanted.lower()}
    needles = [("actor", wanted), ("action", wanted), *(("detail", form) for form in sorted(written))]
    text = " OR ".join(f"contains(lower({column}), lower(?))" for column, _ in needles)
    return f"({text})", [value for _, value in needles]
