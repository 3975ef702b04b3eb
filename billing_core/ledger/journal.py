"""The `Ledger`: bookings, run log, rate cards in use, audit log and the ledger's mode."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from billing_core.errors import AccessDenied, BadParameter, BillingError, RateCardError, SettingsError
from billing_core.ledger.audit_chain import GENESIS, Anchor, entry_hash
from billing_core.ledger.bookings import newest_booking
from billing_core.ledger.compiled import Question
from billing_core.ledger.engine import BookingCounts, Engine, Rows, Writer
from billing_core.ledger.queries import ClosedSpan, Snapshot, with_utc
from billing_core.ledger.schema import utc
from billing_core.rating.card import RateCard, card_from_json
from billing_core.settings import Mode
from billing_core.values.counts import count_of
from billing_core.values.usage_frame import Window

CHAIN_PIECE = 10_000
"""Entries of the audit chain read at once."""


@dataclass(frozen=True, slots=True)
class PullRun:
    """One pull in the run log; times are aware UTC. `outcome`: running, done, partial, failed."""

    run_id: str
    started_at: datetime
    ended_at: datetime | None
    actor: str
    api: str | None
    window: Window
    incremental: bool
    observations: int
    duplicates: int
    counts: BookingCounts
    rejected: int
    outcome: str
    error: str | None


_ANY_LATE = """SELECT 1 FROM events WHERE accounted_at IS NOT NULL UNION ALL
               SELECT 1 FROM event_revisions WHERE accounted_at IS NOT NULL LIMIT 1"""

_RUN_COLUMNS = (
    "run_id, started_at, ended_at, actor, api, window_start, window_end, incremental, observations, duplicates, "
    "events_new, events_changed, events_unchanged, rejected, outcome, error"
)


class Ledger:
    """The ledger of usage events and its journals over an `Engine`; reads of events are questions from `queries`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def read_rows(self, question: Question) -> list[dict[str, Any]]:
        """The rows that answer a question; times are aware UTC."""
        rows: list[dict[str, Any]] = with_utc(self.engine.read(question)).to_pylist()
        return rows

    def version(self) -> int:
        """The newest booking number; it grows with every change of any event. Caches key on it."""
        return newest_booking(self.engine.rows)

    def snapshot(self, as_of: int | None = None) -> Snapshot:
        """The ledger as it is, or as it was after booking number `as_of`, with the months that were closed then."""
        latest = self.version()
        then = latest if as_of is None else min(as_of, latest)
        query = """SELECT seq, start_at, end_at, period FROM closes
                   WHERE seq <= ? AND (reopened_seq IS NULL OR reopened_seq > ?) ORDER BY seq"""
        spans = [
            ClosedSpan(seq, start.replace(tzinfo=UTC), end.replace(tzinfo=UTC), period)
            for seq, start, end, period in self.engine.rows(query, [then, then])
        ]
        late = bool(spans) and bool(self.engine.rows(_ANY_LATE))
        return Snapshot(then, latest, tuple(spans), late)

    def book(self, events: pa.Table, *, run_id: str) -> BookingCounts:
        """Book rows of `EVENT_SCHEMA` in one transaction; equal events are left alone."""
        with self.engine.transaction() as writer:
            return writer.book(events, run_id=run_id)

    def claim(self, mode: Mode) -> None:
        """Bind the ledger to demo or live data on first use; raises if it holds the other kind.

        Raises SettingsError: if it holds the other kind: invented events must never mix with billable ones.
        """
        with self.engine.transaction() as writer:
            claim(writer, mode)

    def kind(self) -> Mode | None:
        """Whether the ledger holds demo or live data; `None` while it is new."""
        rows = self.engine.rows("SELECT value FROM meta WHERE name = 'mode'")
        return Mode(rows[0][0]) if rows else None

    def register_cards(self, cards: Iterable[RateCard], *, actor: str) -> None:
        """Store rate cards before events name them.

        Raises RateCardError: if a card's content changed under an id that events were rated with.
        """
        with self.engine.transaction() as writer:
            register_cards(writer, cards, actor=actor)

    def card(self, card_id: str) -> RateCard | None:
        """The stored rate card with an id, as it was when events were rated with it; `None` if there is none."""
        rows = self.engine.rows("SELECT content FROM rate_cards WHERE card_id = ?", [card_id])
        return card_from_json(rows[0][0]) if rows else None

    def registered_cards(self) -> dict[str, RateCard]:
        """Every stored rate card by its id, as it was when events were rated with it."""
        rows = self.engine.rows("SELECT card_id, content FROM rate_cards")
        return {card_id: card_from_json(content) for card_id, content in rows}

    def card_versions(self) -> set[str]:
        """Every rate card version that a current event names."""
        return {row[0] for row in self.engine.rows("SELECT DISTINCT rate_card_version FROM events")}

    def versions_of(self, ids: Sequence[str]) -> dict[str, str]:
        """Event id → rate card version, for those of the given events that are already booked."""
        query = "SELECT id, rate_card_version FROM events WHERE id IN (SELECT unnest(?))"
        return {row[0]: row[1] for row in self.engine.rows(query, [list(ids)])}

    def begun_before(self, starts: Mapping[str, datetime]) -> list[str]:
        """Those of some events (id → start, aware) that are booked with an earlier start."""
        booked = self.engine.rows('SELECT id, "timestamp" FROM events WHERE id IN (SELECT unnest(?))', [list(starts)])
        return [event_id for event_id, start in booked if utc(start) < starts[event_id]]

    def start_run(self, run_id: str, *, actor: str, window: Window, incremental: bool) -> None:
        """Start a line in the run log; a pull whose line never ends was killed."""
        with self.engine.transaction() as writer:
            writer.insert(
                "runs",
                {
                    "run_id": run_id,
                    "started_at": writer.clock(),
                    "actor": actor,
                    "window_start": window.start,
                    "window_end": window.end,
                    "incremental": incremental,
                    "observations": 0,
                    "duplicates": 0,
                    "events_new": 0,
                    "events_changed": 0,
                    "events_unchanged": 0,
                    "rejected": 0,
                    "outcome": "running",
                },
            )

    def end_run(
        self,
        run_id: str,
        *,
        actor: str,
        action: str,
        values: Mapping[str, Any],
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """End a pull's line in the run log and write its audit entry, together; `detail` is in the entry only."""
        with self.engine.transaction() as writer:
            writer.update("runs", {"run_id": run_id, "ended_at": writer.clock(), **values}, key="run_id")
            append_audit(writer, actor, action, {"run": run_id, **values, **(detail or {})})

    def last_runs(self, limit: int = 20) -> list[PullRun]:
        """The newest pulls of the run log, newest first."""
        query = f"SELECT {_RUN_COLUMNS} FROM runs ORDER BY started_at DESC LIMIT ?"
        return [_run(row) for row in self.engine.rows(query, [limit])]

    def covered_until(self) -> datetime | None:
        """Up to when incremental pulls have read without a gap, aware UTC; `None` before the first one."""
        query = """SELECT window_start, least(window_end, started_at), incremental FROM runs
                   WHERE outcome IN ('done', 'partial') ORDER BY ended_at"""
        found = contiguous_end((start, end, incremental) for start, end, incremental in self.engine.rows(query))
        return None if found is None else found.replace(tzinfo=UTC)

    def audit(self, actor: str, action: str, detail: Mapping[str, Any]) -> None:
        """Append one entry to the audit log: who, what, how many, which hash. Entries are chained and never edited."""
        with self.engine.transaction() as writer:
            append_audit(writer, actor, action, detail)

    @contextmanager
    def failure_audited(
        self, actor: str, action: str, detail: Mapping[str, Any], *, log: Callable[[], object] = tuple
    ) -> Iterator[None]:
        """A context whose failure is in the audit log as `action`, with the reason; not if a line of `log` tells of it,
        which is then another than before.
        """
        before = log()
        try:
            yield
        except (AccessDenied, BadParameter):
            raise  # what was asked was wrong; nothing failed
        except BillingError as error:
            with suppress(BillingError):  # the ledger itself may be what fails
                if log() == before:
                    self.audit(actor, action, {**detail, "why": str(error)})
            raise

    def audit_chain(self) -> Iterator[tuple[Any, ...]]:
        """Every audit entry in order, in pieces: seq, happened_at, actor, action, detail, previous_hash, hash."""
        names, begin = "seq, happened_at, actor, action, detail, previous_hash, hash", 0
        while rows := self.engine.rows(
            f"SELECT {names} FROM audit ORDER BY seq, hash LIMIT {CHAIN_PIECE} OFFSET ?", [begin]
        ):
            yield from rows
            begin += len(rows)

    def audit_head(self) -> list[Anchor]:
        """Number and hash of the newest audit entry as noted apart from the log; empty where an older version wrote it.

        Read it before the chain, which only grows.
        """
        rows = self.engine.rows("SELECT value FROM meta WHERE name = 'audit_head'")
        seq, _, digest = rows[0][0].partition(" ") if rows else ("", "", "")
        return [Anchor(int(seq), digest, "the ledger's own note")] if seq.isdecimal() else []

    def audit_entries(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest audit entries, newest first."""
        names = ("seq", "happened_at", "actor", "action", "detail", "previous_hash", "hash")
        query = f"SELECT {', '.join(names)} FROM audit ORDER BY seq DESC LIMIT ?"
        return [dict(zip(names, row, strict=True)) for row in self.engine.rows(query, [limit])]


def claim(writer: Writer, mode: Mode) -> None:
    """Bind the ledger to demo or live data inside a transaction; see `Ledger.claim`."""
    kind = _meta(writer, "mode")
    if kind is None:
        writer.insert("meta", {"name": "mode", "value": mode.value})
    elif kind != mode.value:
        raise SettingsError(
            f"BILLING_WAREHOUSE_URL: this ledger holds {kind} data and BILLING_MODE is {mode.value}; "
            "point it to another file, or move this one away"
        )


def register_cards(writer: Writer, cards: Iterable[RateCard], *, actor: str) -> None:
    """Store rate cards inside a transaction; see `Ledger.register_cards`."""
    known = dict(writer.rows("SELECT card_id, fingerprint FROM rate_cards"))
    for card in cards:
        if (fingerprint := known.get(card.id)) == card.fingerprint():
            continue
        if fingerprint is not None:
            _replace_unused(writer, card)
        writer.insert(
            "rate_cards",
            {
                "card_id": card.id,
                "fingerprint": card.fingerprint(),
                "content": card.to_json(),
                "registered_at": writer.clock(),
            },
        )
        append_audit(writer, actor, "rate_card", {"card": card.id, "sha256": card.fingerprint()})


def fingerprints(rows: Rows) -> dict[str, str]:
    """Fingerprint of every stored rate card by its id."""
    return dict(rows("SELECT card_id, fingerprint FROM rate_cards", []))


def events_naming(rows: Rows, card_id: str) -> int:
    """How many states of events, former ones included, were rated with a card."""
    query = "SELECT count(*) FROM {} WHERE rate_card_version = ?"
    return sum(int(rows(query.format(table), [card_id])[0][0]) for table in ("events", "event_revisions"))


def _replace_unused(writer: Writer, card: RateCard) -> None:
    """A card may be edited only until the first event names it."""
    if named := events_naming(writer.rows, card.id):
        raise RateCardError(
            f"rate card {card.id!r} was changed after it rated {count_of(named, 'event')}; "
            "restore the file, or give the changed card a new id and its own effective_from"
        )
    writer.rows("DELETE FROM rate_cards WHERE card_id = ?", [card.id])


def contiguous_end(windows: Iterable[tuple[datetime, datetime, bool]]) -> datetime | None:
    """The time up to which finished pulls `(start, end, incremental)` have read without a gap, in the order they
    finished.

    Incremental windows found it; a window somebody named extends it only where it joins on.
    """
    covered: datetime | None = None
    for start, end, incremental in windows:
        if (covered is None and incremental) or (covered is not None and start <= covered < end):
            covered = end
    return covered


def _meta(writer: Writer, name: str) -> str | None:
    rows = writer.rows("SELECT value FROM meta WHERE name = ?", [name])
    return rows[0][0] if rows else None


def append_audit(writer: Writer, actor: str, action: str, detail: Mapping[str, Any]) -> None:
    """Append an audit entry inside a transaction: it and what it tells of are written together or not at all."""
    last = writer.rows("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
    seq, previous = (last[0][0] + 1, last[0][1]) if last else (1, GENESIS)
    at = writer.clock()
    text = json.dumps(detail, sort_keys=True, default=str)
    digest = entry_hash(seq, at, actor, action, text, previous)
    writer.insert(
        "audit",
        {
            "seq": seq,
            "happened_at": at,
            "actor": actor,
            "action": action,
            "detail": text,
            "previous_hash": previous,
            "hash": digest,
        },
    )
    writer.rows("DELETE FROM meta WHERE name = 'audit_head'")
    writer.insert("meta", {"name": "audit_head", "value": f"{seq} {digest}"})


def _run(row: tuple[Any, ...]) -> PullRun:
    (
        run_id,
        started,
        ended,
        actor,
        api,
        start,
        end,
        incremental,
        observations,
        duplicates,
        new,
        changed,
        unchanged,
        rejected,
        outcome,
        error,
    ) = row
    return PullRun(
        run_id,
        started.replace(tzinfo=UTC),
        ended and ended.replace(tzinfo=UTC),
        actor,
        api,
        Window(start.replace(tzinfo=UTC), end.replace(tzinfo=UTC)),
        incremental,
        observations,
        duplicates,
        BookingCounts(new, changed, unchanged),
        rejected,
        outcome,
        error,
    )
