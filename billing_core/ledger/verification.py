"""Proof of a closed month from the ledger's own rows: hashes of everything behind it, and the edits they reveal.

Whoever can write the ledger's file may put anything into it. The hashes of a close cover what nothing changes later;
the rules here cover the rest: what no booking wrote, no close froze or no push sent is not there by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from billing_core.ledger.engine import Rows
from billing_core.ledger.schema import CLOSED_COLUMNS, EVENT_COLUMNS, LEARNED

NAMED = 50
"""Entries that a comparison names."""

HASHED_COLUMNS = tuple(column.name for column in CLOSED_COLUMNS)
"""Columns of events whose values are hashed at a close of this version; a manifest names its own."""


@dataclass(frozen=True, slots=True)
class EntrySet:
    """Count and hash of a closed month's entries of one kind: a SHA-256 over all of them, whatever their order."""

    entries: int
    sha256: str


@dataclass(frozen=True, slots=True)
class TamperedEvent:
    """An event of a closed month that is not as frozen: the `fields` that differ; none: missing or surplus."""

    event_id: str
    fields: tuple[str, ...]
    says: str


# ── hashes ───────────────────────────────────────────────────────────────────────────────────────


def entry_sets(
    rows: Rows,
    *,
    seq: int,
    start: datetime,
    end: datetime,
    closed_at: datetime,
    columns: Collection[str] = HASHED_COLUMNS,
) -> dict[str, EntrySet]:
    """Counts and hashes of everything behind a month when it was closed: each set is of entries that nothing changes
    later.

    `columns` of events are hashed: those that the ledger had at the close, which may have more by now.
    """
    values: dict[str, list[Any]] = {
        "seq": [seq],
        "seq_then": [seq, closed_at],
        "window_then": [start, end, closed_at],
        "window_before": [start, end, seq],
        "then": [closed_at],
    }
    return {name: _digest(rows, query, values[needs]) for name, (query, needs) in _sets(columns).items()}


def _digest(rows: Rows, query: str, values: Sequence[Any]) -> EntrySet:
    """Hashes of the rows, gathered in buckets, so that ten million of them never stand in one text."""
    buckets = rows(
        f"""SELECT left(row_hash, 3) AS bucket, count(*), sha256(string_agg(row_hash, '' ORDER BY row_hash))
            FROM ({query}) GROUP BY bucket ORDER BY bucket""",
        values,
    )
    whole = hashlib.sha256("".join(digest for _, _, digest in buckets).encode()).hexdigest()
    return EntrySet(sum(count for _, count, _ in buckets), whole)


def _text(name: str, kind: str, table: str = "") -> str:
    """A column as text that is the same in every version of the engine."""
    column = f'{table}"{name}"'
    if kind == "TIMESTAMP":
        return f"epoch_us({column})::VARCHAR"
    if name == "usage":
        parts = _joined([f'(u."{part}"::VARCHAR)' for part in _USAGE_PARTS])
        return f"array_to_string(list_transform({column}, lambda u: {parts}), ';')"
    return f"{column}::VARCHAR"


_USAGE_PARTS = ("model", "input", "output", "cache_read", "cache_write", "reasoning", "other", "cost_usd")


def _joined(texts: Sequence[str]) -> str:
    """Texts in one, each with its length before it: no two rows read the same."""
    return " || ".join(f"coalesce(length({text}) || ':' || {text}, '-')" for text in texts)


def _hash(columns: Sequence[tuple[str, str]], table: str = "") -> str:
    return f"sha256({_joined([_text(name, kind, table) for name, kind in columns])}) AS row_hash"


_INTENT = [
    *((name, "VARCHAR") for name in ("identifier", "event_name", "customer_id", "source", "revision")),
    ("stamp", "TIMESTAMP"),
    *((name, "VARCHAR") for name in ("credits", "carried_before", "value", "events")),
]
_COVERAGE = [(name, "VARCHAR") for name in ("identifier", "event_id", "customer_id", "credits")]
_HOLD = [*((name, "VARCHAR") for name in ("event_id", "cause", "reason", "actor")), ("held_at", "TIMESTAMP")]
_LINE = [
    *((name, "VARCHAR") for name in ("seq", "organization_id", "name", "customer_id")),
    ("changed_at", "TIMESTAMP"),
    ("changed_by", "VARCHAR"),
    ("source", "VARCHAR"),
]
_IMPORT = [
    *((name, "VARCHAR") for name in ("id", "kind", "file_name", "sha256", "seq")),
    ("imported_at", "TIMESTAMP"),
    ("imported_by", "VARCHAR"),
]
_SETTLEMENT = [
    *((name, "VARCHAR") for name in ("id", "kind", "customer_id", "month", "timezone", "credits", "amount_usd")),
    *((name, "VARCHAR") for name in ("idempotency_key", "reason", "actor")),
    ("made_at", "TIMESTAMP"),
]
_SETTLED = [(name, "VARCHAR") for name in ("settlement_id", "event_id", "customer_id", "credits", "amount_usd")]
SETS_ADDED_LATER = frozenset({"settlements", "settled_events"})
"""Entry sets that manifests of earlier versions do not name."""
_BOOKING = [("seq", "BIGINT"), ("booked_at", "TIMESTAMP"), ("run_id", "VARCHAR")]


def _sets(columns: Collection[str]) -> Mapping[str, tuple[str, str]]:
    """What a manifest hashes, and which values each question needs."""
    frozen = [(column.name, column.duckdb) for column in CLOSED_COLUMNS if column.name in columns]
    stored = [(column.name, column.duckdb) for column in EVENT_COLUMNS if column.name in columns]
    revision = [*stored, ("superseded_seq", "BIGINT"), ("changed_columns", "VARCHAR")]
    return {
        "events": (f"SELECT {_hash(frozen)} FROM closed_events WHERE close_seq = ?", "seq"),
        "revisions": (
            f"""SELECT {_hash(revision)} FROM event_revisions WHERE "timestamp" >= ? AND "timestamp" < ?
                AND superseded_seq < ?""",
            "window_before",
        ),
        "meter_events": (
            f"SELECT {_hash(_INTENT)} FROM intents WHERE stamp >= ? AND stamp < ? AND created_at <= ?",
            "window_then",
        ),
        "coverage": (
            f"""SELECT {_hash(_COVERAGE, "c.")} FROM coverage c JOIN intents i USING (identifier)
                WHERE i.stamp >= ? AND i.stamp < ? AND i.created_at <= ?""",
            "window_then",
        ),
        "holds": (
            f"""SELECT {_hash(_HOLD, "h.")} FROM holds h
                JOIN (SELECT DISTINCT id FROM closed_events WHERE close_seq = ?) e ON e.id = h.event_id
                WHERE h.held_at <= ?""",
            "seq_then",
        ),
        "organization_map": (f"SELECT {_hash(_LINE)} FROM organization_directory WHERE changed_at <= ?", "then"),
        "imports": (f"SELECT {_hash(_IMPORT)} FROM imports WHERE imported_at <= ?", "then"),
        "settlements": (f"SELECT {_hash(_SETTLEMENT)} FROM settlements WHERE made_at <= ?", "then"),
        "settled_events": (
            f"""SELECT {_hash(_SETTLED, "x.")} FROM settlement_events x JOIN settlements s ON s.id = x.settlement_id
                WHERE s.made_at <= ?""",
            "then",
        ),
        "bookings": (f"SELECT {_hash(_BOOKING)} FROM bookings WHERE seq < ?", "seq"),
    }


# ── events beside what was frozen ────────────────────────────────────────────────────────────────


def tampered(rows: Rows, *, seq: int, start: datetime, end: datetime) -> list[TamperedEvent]:
    """Events that are not as close `seq` of `[start, end)` froze them, and events that count in its month, or beside
    it, without having been frozen or carried over.
    """
    found = [
        TamperedEvent(event_id, tuple(fields), f"event {event_id} is not as it was closed: {', '.join(fields)}")
        for event_id, fields in rows(_CHANGED, [seq])
    ]
    found += [
        TamperedEvent(event_id, (), f"event {event_id} was closed and the ledger does not know it any more")
        for (event_id,) in rows(_GONE, [seq])
    ]
    return found + [
        TamperedEvent(event_id, (), f"event {event_id} {says}") for event_id, says in rows(_ADDED, [seq, start, end])
    ]


_OWN = {
    "sync_status",
    "sync_error",
    "meter_event_identifier",
    "synced_at",
    "marks",
    "quarter_hour",
    "policy",
    "named_customer_id",
}
"""What may differ between an event and its frozen state although nobody touched its facts. Whether it counts later and
whether it was billed elsewhere change with a new revision only."""

_FACTS = [column.name for column in EVENT_COLUMNS if column.name not in _OWN]
_FACT_LIST = ", ".join(f'"{name}"' for name in _FACTS)

_KNOWN = f"""(SELECT {_FACT_LIST} FROM events UNION ALL SELECT {_FACT_LIST} FROM event_revisions)"""
"""Every state of every event there ever was."""

_BOOKED_AS = {"id", "revision", "seq", "booked_at", "run_id"}
"""What says how a state came to be, not what it is."""


_UNLESS_LEARNED = {name: f' AND f."{name}" IS NOT NULL' for name in LEARNED}


def _differing(names: Sequence[str], known: str) -> str:
    differ = ", ".join(
        f"""CASE WHEN f."{name}" IS DISTINCT FROM {known}."{name}"{_UNLESS_LEARNED.get(name, "")} THEN '{name}' END"""
        for name in names
    )
    return f"list_filter([{differ}], lambda name: name IS NOT NULL)"


_CHANGED = f"""
SELECT f.id, {_differing([name for name in _FACTS if name not in {"id", "revision"}], "k")} AS fields
FROM closed_events f JOIN {_KNOWN} k ON k.id = f.id AND k.revision = f.revision
WHERE f.close_seq = ? AND NOT f.is_reversal AND len(fields) > 0 ORDER BY f.id LIMIT {NAMED}
"""

_GONE = f"""
SELECT f.id FROM closed_events f ANTI JOIN {_KNOWN} k ON k.id = f.id AND k.revision = f.revision
WHERE f.close_seq = ? AND NOT f.is_reversal ORDER BY f.id LIMIT {NAMED}
"""

_ADDED = f"""
WITH frozen AS (SELECT * FROM closed_events WHERE close_seq = $1 AND NOT is_reversal),
beside AS (
    SELECT e.id, f.id IS NOT NULL AS was_closed, e.seq, e.accounted_at,
           e."timestamp" >= $2 AND e."timestamp" < $3 AS began_inside,
           coalesce(e.accounted_at, e."timestamp") AS counts_at, counts_at >= $2 AND counts_at < $3 AS counts_inside,
           f.id IS NOT NULL AND (e.revision = f.revision OR len({
    _differing([name for name in _FACTS if name not in _BOOKED_AS], "e")
}) = 0) AS is_frozen,
           EXISTS (SELECT 1 FROM event_revisions r WHERE r.id = e.id AND r.accounted_at = e.accounted_at) AS was_carried
    FROM events e LEFT JOIN frozen f USING (id)
    WHERE began_inside OR counts_inside OR f.id IS NOT NULL),
judged AS (
    SELECT id, CASE
        WHEN is_frozen IS NOT TRUE AND counts_inside
            THEN 'was put into the closed month without being booked'
        WHEN was_closed AND is_frozen IS NOT TRUE AND accounted_at IS NULL
            THEN 'changed after the close and was not carried into an open month: it counts twice'
        WHEN seq < $1 AND began_inside AND NOT counts_inside
             AND id NOT IN (SELECT id FROM closed_events WHERE close_seq <> $1) AND NOT was_carried
            THEN 'was taken out of the closed month'
        END AS says
    FROM beside)
SELECT id, says FROM judged WHERE says IS NOT NULL ORDER BY id LIMIT {NAMED}
"""
"""What counts in a closed month is what was frozen, or has become that again; what changed since counts elsewhere, with
the frozen state taken back. Only an event that another close froze, or that came late for another month before it was
found to be of this one, may count elsewhere from before on."""


# ── the ledger against its journals ──────────────────────────────────────────────────────────────


def unbooked(rows: Rows) -> Iterator[str]:
    """Faults of bookings, a sentence each: events that exist twice, bookings of another number of states."""
    for event_id, times in rows(_TWICE, []):
        yield f"event {event_id} is there {times:,} times; every event is once"
    for seq, there, wrote in rows(_MISCOUNTED, []):
        if wrote is None:
            yield f"{there:,} states of events name the booking {seq}, which the journal does not list"
        else:
            yield f"booking {seq:,} wrote {wrote:,} states of events and there are {there:,}"


_TWICE = f"SELECT id, count(*) FROM events GROUP BY id HAVING count(*) > 1 ORDER BY id LIMIT {NAMED}"

_MISCOUNTED = f"""
WITH there AS (SELECT seq, count(*) AS states FROM (SELECT seq FROM events UNION ALL SELECT seq FROM event_revisions)
               GROUP BY seq),
wrote AS (SELECT seq, sum(events_new + events_changed) AS states FROM bookings GROUP BY seq)
SELECT coalesce(t.seq, w.seq), coalesce(t.states, 0), w.states FROM there t FULL JOIN wrote w ON t.seq = w.seq
WHERE w.states IS NULL OR coalesce(t.states, 0) <> w.states ORDER BY 1 LIMIT {NAMED}
"""
"""A state of an event stays what its booking made it: the newest is in `events`, those before in `event_revisions`."""


def unsettled(rows: Rows) -> Iterator[str]:
    """Faults of settlements, one sentence each: those whose events do not add up, and events nobody settled."""
    for settlement_id, says, adds_up in rows(_SETTLED_OTHERWISE, []):
        yield f"settlement {settlement_id} is over {says} credits and its events add up to {adds_up}"


_SETTLED_OTHERWISE = f"""
SELECT coalesce(s.id, x.settlement_id), s.credits, coalesce(x.credits, 0)
FROM settlements s FULL JOIN (SELECT settlement_id, sum(credits) AS credits FROM settlement_events
                              GROUP BY settlement_id) x ON x.settlement_id = s.id
WHERE s.credits IS DISTINCT FROM coalesce(x.credits, 0) ORDER BY 1 LIMIT {NAMED}
"""


def unsent(rows: Rows, noted: Mapping[str, str]) -> Iterator[str]:
    """Faults of pushes, one sentence each: meter events that no push wrote or that do not carry what they cover, and
    pushes that wrote others than `noted`.

    `noted`: push → SHA-256 of the identifiers it wrote down, as the audit log has it.
    """
    for identifier, carried, covered in rows(_UNCOVERED, []):
        yield f"meter event {identifier} carries {carried} credits and what it covers adds up to {covered}"
    for identifier, says in rows(_NOBODYS, []):
        yield f"meter event {identifier} {says}"
    for push_id, now in rows(_PUSHED, [list(noted)]):
        if now != noted[push_id]:
            yield f"push {push_id} wrote down other meter events than the ledger holds"


_UNCOVERED = f"""
SELECT coalesce(i.identifier, c.identifier), i.credits, coalesce(c.credits, 0)
FROM intents i FULL JOIN (SELECT identifier, sum(credits) AS credits FROM coverage GROUP BY identifier) c
     ON c.identifier = i.identifier
WHERE i.credits IS DISTINCT FROM coalesce(c.credits, 0) ORDER BY 1 LIMIT {NAMED}
"""

_NOBODYS = f"""
SELECT identifier, 'names the push ' || coalesce(push_id, '') || ', which the journal does not list'
FROM intents WHERE push_id IS NULL OR push_id NOT IN (SELECT push_id FROM pushes)
UNION ALL
SELECT identifier, 'covers ' || min(event_id) || ', which is no event the ledger ever knew' FROM coverage
WHERE event_id NOT IN (SELECT id FROM events UNION ALL SELECT id FROM event_revisions) GROUP BY identifier
ORDER BY 1, 2 LIMIT {NAMED}
"""

_PUSHED = """
SELECT p.push_id, sha256(coalesce(string_agg(i.identifier, chr(10) ORDER BY i.identifier), ''))
FROM (SELECT unnest($1::VARCHAR[]) AS push_id) p LEFT JOIN intents i ON i.push_id = p.push_id
GROUP BY p.push_id ORDER BY p.push_id
"""
