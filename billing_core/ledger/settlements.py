"""Settlements: what of an event was written off, or put on an invoice as an item of its own, because no meter event can
carry it any more.

A settlement is of one customer and one month. What it covers is owed no more while it counts; how each of its events
stood before is kept with it, so that taking it back restores them. Everything about one is written in one transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from billing_core.ledger import sent_elsewhere
from billing_core.ledger.engine import Engine, Rows, Writer
from billing_core.ledger.holds import ACTIVE, DECIDED_BY_PEOPLE, SENT_ELSEWHERE, keep_back, release
from billing_core.ledger.journal import append_audit
from billing_core.ledger.late_usage import after_closes
from billing_core.ledger.schema import (
    IN_DOUBT,
    INVOICE_ITEM,
    LIVE,
    OPEN,
    SENT,
    VOID,
    WRITE_OFF,
    times,
    utc,
    with_mark,
    without_mark,
)
from billing_core.rating.events import NO_CUSTOMER
from billing_core.types import Flag, SyncStatus, plain_decimal, utc_text

FLAG_OF = {WRITE_OFF: Flag.WRITTEN_OFF, INVOICE_ITEM: Flag.INVOICED_SEPARATELY}

COLUMNS = (
    "id",
    "kind",
    "customer_id",
    "month",
    "timezone",
    "state",
    "idempotency_key",
    "credits",
    "amount_usd",
    "amount",
    "currency",
    "item_id",
    "invoice_id",
    "invoice_status",
    "reason",
    "actor",
    "made_at",
    "unknown_since",
    "answered_at",
    "answer",
    "request_id",
    "checked_at",
    "taken_back_at",
    "taken_back_by",
    "taken_back_reason",
)


@dataclass(frozen=True, slots=True)
class Settlement:
    """One settlement; `amount` is in minor units of `currency`, times are aware UTC.

    kind: `write_off` or `invoice_item`.
    month: When its usage counts, as `2026-10`, in `timezone`.
    state: `sending` (an item was asked for, the outcome is not known) · `settled` · `confirmed` (the item is on a final
        invoice) · `refused` (by Stripe) · `taking_back` · `taken_back`.
    amount_usd: The exact sum; `amount` is that, rounded once.
    """

    id: str
    kind: str
    customer_id: str | None
    month: str
    timezone: str
    state: str
    idempotency_key: str
    credits: Decimal
    amount_usd: Decimal
    amount: int | None
    currency: str | None
    item_id: str | None
    invoice_id: str | None
    invoice_status: str | None
    reason: str
    actor: str
    made_at: datetime
    unknown_since: datetime | None = None
    answered_at: datetime | None = None
    answer: str | None = None
    request_id: str | None = None
    checked_at: datetime | None = None
    taken_back_at: datetime | None = None
    taken_back_by: str | None = None
    taken_back_reason: str | None = None

    @property
    def counts(self) -> bool:
        """Whether what it covers is owed no more."""
        return self.state in LIVE

    def to_json(self) -> dict[str, Any]:
        """The settlement with exact amounts as text and times as ISO 8601 in UTC."""

        def text(value: Any) -> Any:
            if isinstance(value, Decimal):
                return plain_decimal(value)
            return utc_text(value) if isinstance(value, datetime) else value

        hidden = {"idempotency_key", "request_id"}
        return {name: text(getattr(self, name)) for name in COLUMNS if name not in hidden}


@dataclass(frozen=True, slots=True)
class SettledPart:
    """What a settlement settles of one event: exact credits and US dollars."""

    event_id: str
    credits: Decimal
    amount_usd: Decimal


@dataclass(frozen=True, slots=True)
class OpenEvent:
    """An event as settling looks at it.

    counts_at: When its usage counts, aware UTC.
    cause: Of its active hold, if it has one.
    is_in_doubt: A meter event or invoice item may or may not have carried it.
    parts: Customer → credits it owes that nothing covers; below 0: to be given back.
    """

    id: str
    customer_id: str | None
    timestamp: datetime
    counts_at: datetime
    credit_price_usd: Decimal
    sync_status: str
    flags: tuple[str, ...]
    cause: str | None
    was_rejected: bool
    is_billed_elsewhere: bool
    is_in_doubt: bool
    parts: Mapping[str | None, Decimal]


_LIVE_PARTS = f"""
SELECT x.event_id, x.customer_id, x.credits, s.kind, s.state, s.answered_at
FROM settlement_events x JOIN settlements s ON s.id = x.settlement_id
WHERE s.state IN {LIVE!r} AND x.event_id IN (SELECT id FROM chosen)"""

_OPEN_PARTS = f"""
chosen AS MATERIALIZED (SELECT * FROM events WHERE id IN (SELECT unnest($1::VARCHAR[]))),
live AS ({_LIVE_PARTS}),
parts AS (
    SELECT c.event_id, c.customer_id, c.credits AS paid, 0::DECIMAL(18, 6) AS written_off
    FROM coverage c JOIN intents i USING (identifier)
    WHERE i.state NOT IN {VOID!r} AND c.event_id IN (SELECT id FROM chosen)
    UNION ALL SELECT event_id, customer_id, credits, 0 FROM live WHERE kind = '{INVOICE_ITEM}'
    UNION ALL SELECT l.event_id, CASE WHEN l.credits > 0 THEN c.customer_id ELSE l.customer_id END, 0, l.credits
    FROM live l JOIN chosen c ON c.id = l.event_id WHERE l.kind = '{WRITE_OFF}'
    UNION ALL SELECT id, customer_id, 0, 0 FROM chosen),
summed AS (SELECT event_id, customer_id, sum(paid) AS paid, sum(written_off) AS written_off
           FROM parts GROUP BY event_id, customer_id),
rest AS (
    SELECT s.event_id, s.customer_id, s.written_off,
           CASE WHEN s.customer_id IS NOT DISTINCT FROM c.customer_id THEN c.credits_total ELSE 0 END - s.paid
               AS credits
    FROM summed s JOIN chosen c ON c.id = s.event_id),
open_parts AS (
    SELECT event_id, customer_id,
           credits - greatest(least(credits, 0), least(greatest(credits, 0), written_off)) AS credits FROM rest),
doubtful AS (
    SELECT c.event_id FROM coverage c JOIN intents i USING (identifier) WHERE i.state IN {OPEN!r}
    UNION SELECT event_id FROM live WHERE state IN {IN_DOUBT!r})"""
"""What of each chosen event (its ids are the first value) each customer still owes, as `stripe.intents.owed` has it."""

_FACTS = f"""
WITH {_OPEN_PARTS},
held AS (SELECT event_id, max(cause) AS cause FROM holds WHERE {ACTIVE} GROUP BY event_id)
SELECT c.id, c.customer_id, c."timestamp", coalesce(c.accounted_at, c."timestamp"), c.credit_price_usd, c.sync_status,
       concat_ws(',', nullif(c.flags, ''), nullif(c.marks, '')), h.cause, c.meter_event_identifier IS NOT NULL,
       coalesce(c.billed_elsewhere, false), c.id IN (SELECT event_id FROM doubtful),
       list(p.customer_id ORDER BY p.customer_id), list(p.credits ORDER BY p.customer_id)
FROM chosen c JOIN open_parts p ON p.event_id = c.id LEFT JOIN held h ON h.event_id = c.id
GROUP BY ALL ORDER BY 1"""

_SHOWN = f"""
WITH {_OPEN_PARTS},
finished AS (SELECT event_id FROM open_parts GROUP BY event_id HAVING bool_and(credits = 0)),
newest AS (
    SELECT c.event_id, max_by(i.identifier, (i.created_at, i.identifier)) AS identifier,
           max_by(i.state, (i.created_at, i.identifier)) AS state
    FROM coverage c JOIN intents i USING (identifier) JOIN chosen e ON e.id = c.event_id
    WHERE i.state NOT IN {VOID!r} AND c.customer_id = e.customer_id GROUP BY c.event_id),
items AS (
    SELECT event_id, bool_or(kind = '{INVOICE_ITEM}') AS is_invoiced, bool_or(state = 'sending') AS is_open,
           coalesce(bool_and(state = 'confirmed') FILTER (kind = '{INVOICE_ITEM}'), false) AS is_confirmed,
           max(answered_at) AS answered_at
    FROM live GROUP BY event_id)
SELECT i.event_id, n.identifier, CASE
           WHEN n.state = 'accepted' THEN 'processed' WHEN n.state = 'confirmed' THEN 'confirmed'
           WHEN i.is_open THEN 'sending' WHEN i.is_confirmed THEN 'confirmed' WHEN i.is_invoiced THEN 'processed'
           ELSE 'excluded' END,
       CASE WHEN n.identifier IS NULL THEN i.answered_at ELSE e.synced_at END
FROM items i JOIN finished f USING (event_id) JOIN chosen e ON e.id = i.event_id LEFT JOIN newest n USING (event_id)
WHERE i.event_id NOT IN (SELECT c.event_id FROM coverage c JOIN intents t USING (identifier) WHERE t.state IN {OPEN!r})
"""


class SettlementStore:
    """The tables `settlements` and `settlement_events`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def all(self) -> list[Settlement]:
        """Every settlement there ever was, newest first."""
        return _settlements(self._engine.rows, "TRUE ORDER BY made_at DESC, id")

    def get(self, settlement_id: str) -> Settlement | None:
        """One settlement; `None` if there is none of that id."""
        return next(iter(_settlements(self._engine.rows, "id = ?", [settlement_id])), None)

    def in_doubt(self) -> list[Settlement]:
        """Settlements whose invoice item may or may not be at Stripe, oldest first."""
        return _settlements(self._engine.rows, f"state IN {IN_DOUBT!r} ORDER BY made_at, id")

    def unconfirmed(self, checked_before: datetime, limit: int) -> list[Settlement]:
        """Invoice items not seen on a final invoice yet that nobody has looked at since, longest ago first."""
        where = f"""kind = '{INVOICE_ITEM}' AND state = 'settled' AND coalesce(checked_at, answered_at, made_at) < ?
                    ORDER BY coalesce(checked_at, made_at), id LIMIT ?"""
        return _settlements(self._engine.rows, where, [checked_before, limit])

    def of_month(self, period: str, timezone: str, made_before: datetime) -> list[Settlement]:
        """Settlements that count and whose usage counts in a month, by kind and customer."""
        where = f"""state IN {LIVE!r} AND month = ? AND timezone = ? AND made_at <= ?
                    ORDER BY kind, customer_id NULLS FIRST, id"""
        return _settlements(self._engine.rows, where, [period, timezone, made_before])

    def known(self, ids: Sequence[str]) -> set[str]:
        """Those of some settlement ids that this ledger wrote."""
        query = "SELECT id FROM settlements WHERE id IN (SELECT unnest(?))"
        return {row[0] for row in self._engine.rows(query, [list(ids)])}

    def event_counts(self) -> dict[str, int]:
        """Settlement id → how many events it settles."""
        query = "SELECT settlement_id, count(*) FROM settlement_events GROUP BY settlement_id"
        return dict(self._engine.rows(query))

    def event_ids(self, settlement_id: str) -> list[str]:
        """The events of a settlement."""
        query = "SELECT event_id FROM settlement_events WHERE settlement_id = ? ORDER BY event_id"
        return [row[0] for row in self._engine.rows(query, [settlement_id])]

    def of_event(self, event_id: str) -> list[tuple[Settlement, Decimal]]:
        """Every settlement an event ever was part of, oldest first, with the credits of it."""
        query = """SELECT x.settlement_id, sum(x.credits) FROM settlement_events x WHERE x.event_id = ?
                   GROUP BY x.settlement_id"""
        credits_ = dict(self._engine.rows(query, [event_id]))
        if not credits_:
            return []
        where = "id IN (SELECT unnest(?)) ORDER BY made_at, id"
        return [(one, credits_[one.id]) for one in _settlements(self._engine.rows, where, [list(credits_)])]

    def facts(self, ids: Sequence[str]) -> list[OpenEvent]:
        """Events as settling looks at them, by id; those that do not exist are left out."""
        return facts(self._engine.rows, ids)

    # ── writing ──────────────────────────────────────────────────────────────────────────────────

    def write_down(
        self, made: Sequence[tuple[Settlement, Sequence[SettledPart]]], expected: Collection[OpenEvent]
    ) -> bool:
        """Write settlements down, with how their events stand now; `False`, and nothing, if an event has changed since
        it was `expected` to be so.
        """
        with self._engine.transaction() as writer:
            wanted = {one.id: one for one in expected}
            if {one.id: one for one in facts(writer.rows, list(wanted))} != wanted:
                return False
            _write_down(writer, made)
        return True

    def answered(self, settlement_id: str, **values: Any) -> None:
        """Write down what Stripe said of a settlement's invoice item, and let its events say so."""
        with self._engine.transaction() as writer:
            writer.update("settlements", {"id": settlement_id, **values}, key="id")
            ids = _ids_of(writer.rows, settlement_id)
            show_settled(writer, ids)
            writer.rows(
                """UPDATE events SET sync_status = 'processed' WHERE id IN (SELECT unnest(?))
                    AND sync_status = 'sending' AND meter_event_identifier IS NULL
                    AND NOT EXISTS (SELECT 1 FROM settlement_events x JOIN settlements s ON s.id = x.settlement_id
                                    WHERE x.event_id = events.id AND s.state = 'sending')""",
                [ids],
            )  # those that changed meanwhile owe the difference
            writer.advance(f"settlement {settlement_id}")

    def undo(
        self, settlement: Settlement, *, state: str, actor: str, reason: str, now: datetime, answer: str | None = None
    ) -> None:
        """End a settlement as `refused` or `taken_back`: its events stand as before, and are kept back again."""
        with self._engine.transaction() as writer:
            now = after_closes(writer, now)
            values: dict[str, Any] = {"id": settlement.id, "state": state, "unknown_since": None}
            if answer is not None:
                values["answer"] = answer
            if state == "taken_back":
                values |= {"taken_back_at": now, "taken_back_by": actor, "taken_back_reason": reason}
            writer.update("settlements", values, key="id")
            _restore(writer, settlement, now=now)
            append_audit(writer, actor, f"settlement {state}", _detail(settlement) | {"reason": reason or answer})
            writer.advance(f"settlement {settlement.id}")

    def begin_taking_back(self, settlement: Settlement, *, actor: str, reason: str, now: datetime) -> None:
        """Note who takes an invoice item back, and why. Committed before Stripe is asked to delete it."""
        values = {"taken_back_at": now, "taken_back_by": actor, "taken_back_reason": reason}
        with self._engine.transaction() as writer:
            writer.update("settlements", {"id": settlement.id, "state": "taking_back", **values}, key="id")
            writer.advance(f"settlement {settlement.id}")

    def cannot_take_back(self, settlement: Settlement, **values: Any) -> None:
        """Note that an invoice item stays: its invoice is final."""
        nothing = {"taken_back_at": None, "taken_back_by": None, "taken_back_reason": None}
        self.answered(settlement.id, **nothing, **values)


def facts(rows: Rows, ids: Sequence[str]) -> list[OpenEvent]:
    """Events as settling looks at them; see `SettlementStore.facts`."""
    return [
        OpenEvent(
            event_id,
            payer,
            utc(start),
            utc(counts_at),
            price,
            status,
            tuple(flags.split(",")) if flags else (),
            cause,
            was_rejected and status == SyncStatus.ERROR,
            elsewhere,
            in_doubt,
            {customer: credits_ for customer, credits_ in zip(customers, owed, strict=True) if credits_},
        )
        for (
            event_id,
            payer,
            start,
            counts_at,
            price,
            status,
            flags,
            cause,
            was_rejected,
            elsewhere,
            in_doubt,
            customers,
            owed,
        ) in rows(_FACTS, [list(ids)])
    ]


# ── inside transactions ──────────────────────────────────────────────────────────────────────────


def show_settled(writer: Writer, ids: Iterable[str] | None = None) -> None:
    """Let events say so whose credits are covered whole, and some of them by a settlement; without `ids` those that
    were booked as if nobody had settled them.
    """
    if ids is None:
        settled = " OR ".join(f"contains(marks, '{flag}')" for flag in FLAG_OF.values())
        query = f"SELECT id FROM events WHERE sync_status IN ('pending', 'error') AND ({settled})"
        ids = [row[0] for row in writer.rows(query)]
    if not (chosen := list(ids)):
        return
    shown = writer.rows(_SHOWN, [chosen])
    rows = {
        "id": pa.array([row[0] for row in shown], pa.string()),
        "meter_event_identifier": pa.array([row[1] for row in shown], pa.string()),
        "sync_status": pa.array([row[2] for row in shown], pa.string()),
        "sync_error": pa.nulls(len(shown), pa.string()),
        "synced_at": times([row[3] and utc(row[3]) for row in shown]),
    }
    writer.amend("events", pa.table(rows), key="id")


def _write_down(writer: Writer, made: Sequence[tuple[Settlement, Sequence[SettledPart]]]) -> None:
    now = after_closes(writer, made[0][0].made_at)
    ids = sorted({part.event_id for _, parts in made for part in parts})
    before = _standing(writer.rows, ids)
    marks = {event_id: row["marks"] or "" for event_id, row in before.items()}
    for settlement, parts in made:
        writer.insert("settlements", {**{name: getattr(settlement, name) for name in COLUMNS}, "made_at": now})
        writer.append("settlement_events", _kept(settlement, parts, before))
        for part in parts:
            marks[part.event_id] = with_mark(marks[part.event_id], FLAG_OF[settlement.kind])
        detail = _detail(settlement) | {"reason": settlement.reason, "ids": [part.event_id for part in parts][:100]}
        append_audit(writer, settlement.actor, "settle", detail)
    _set_marks(writer, marks)
    done = [one.id for one in facts(writer.rows, ids) if not one.parts]
    release(writer, done, actor=made[0][0].actor, now=now)
    sent_elsewhere.decide_sent_elsewhere(writer, done, actor=made[0][0].actor, now=now)
    _set_marks(writer, {one: without_mark(marks[one], Flag.SENT_ELSEWHERE) for one in done})
    show_settled(writer, done)
    writer.advance(f"settlement {made[0][0].id}")


def _kept(settlement: Settlement, parts: Sequence[SettledPart], before: Mapping[str, Mapping[str, Any]]) -> pa.Table:
    """The rows of `settlement_events`: what is settled of each event, and how it stands `before`."""
    then = [before[part.event_id] for part in parts]
    texts = ("sync_status", "sync_error", "meter_event_identifier", "held_cause", "held_reason", "held_by")
    return pa.table(
        {
            "settlement_id": pa.array([settlement.id] * len(parts), pa.string()),
            "event_id": pa.array([part.event_id for part in parts], pa.string()),
            "customer_id": pa.array([settlement.customer_id] * len(parts), pa.string()),
            "credits": pa.array([part.credits for part in parts], pa.decimal128(18, 6)),
            "amount_usd": pa.array([part.amount_usd for part in parts], pa.decimal128(38, 18)),
            "stamp": times([utc(row["timestamp"]) for row in then]),
            "revision": pa.array([row["revision"] for row in then], pa.int64()),
            "synced_at": times([row["synced_at"] and utc(row["synced_at"]) for row in then]),
            **{name: pa.array([row[name] for row in then], pa.string()) for name in texts},
        }
    )


_STANDING = f"""
SELECT e.id, e.customer_id, e."timestamp", e.revision, e.sync_status, e.sync_error, e.meter_event_identifier,
       e.synced_at, e.marks, e.credits_total, h.cause AS held_cause, h.reason AS held_reason, h.actor AS held_by
FROM events e LEFT JOIN (SELECT * FROM holds WHERE {ACTIVE}
                         QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY held_at DESC) = 1) h
     ON h.event_id = e.id
WHERE e.id IN (SELECT unnest(?))"""
_STANDING_NAMES = (
    "id",
    "customer_id",
    "timestamp",
    "revision",
    "sync_status",
    "sync_error",
    "meter_event_identifier",
    "synced_at",
    "marks",
    "credits_total",
    "held_cause",
    "held_reason",
    "held_by",
)


def _standing(rows: Rows, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How some events stand now, with their active hold."""
    return {row[0]: dict(zip(_STANDING_NAMES, row, strict=True)) for row in rows(_STANDING, [list(ids)])}


def _restore(writer: Writer, settlement: Settlement, *, now: datetime) -> None:
    """The events of a settlement that counts no more stand as before it.

    One that changed since, or was sent since, owes again what the settlement covered: the next push plans that.
    """
    columns = ("revision", "sync_status", "sync_error", "meter_event_identifier", "synced_at")
    query = f"""SELECT event_id, held_cause, held_reason, held_by, {", ".join(columns)} FROM settlement_events
                WHERE settlement_id = ?"""
    kept = {event_id: more for event_id, *more in writer.rows(query, [settlement.id])}
    flag, standing = FLAG_OF[settlement.kind], _standing(writer.rows, list(kept))
    still = _events_of_kind(writer.rows, settlement.kind, list(kept))
    holds: dict[str, list[tuple[str, str, str]]] = {}
    statuses, marks = [], {}
    for event_id, now_is in standing.items():
        cause, why, by, *then = kept[event_id]
        revision, status, error, identifier, synced_at = then
        is_same = revision == now_is["revision"]
        mark = now_is["marks"] or ""
        if event_id not in still:
            mark = without_mark(mark, flag)
        if now_is["meter_event_identifier"] is not None and now_is["sync_status"] in SENT:
            mark = with_mark(mark, Flag.CHANGED_AFTER_SENDING)  # what a meter event carries stays; the rest is owed
            row = (
                now_is["sync_status"],
                error if is_same else None,
                now_is["meter_event_identifier"],
                now_is["synced_at"],
            )
        elif is_same:
            row = (status, error, identifier, synced_at)
        elif now_is["customer_id"] is None:
            row = (SyncStatus.ERROR.value, NO_CUSTOMER, None, None)
        else:
            row = (SyncStatus.PENDING.value, None, None, None)
        is_kept_back = cause is not None and now_is["held_cause"] is None and (is_same or cause in DECIDED_BY_PEOPLE)
        if is_kept_back:
            holds.setdefault(by, []).append((event_id, cause, why))
            row = (row[0], row[1] or why, *row[2:])
            if cause == SENT_ELSEWHERE:
                mark = with_mark(mark, Flag.SENT_ELSEWHERE)
        statuses.append((event_id, *row))
        marks[event_id] = mark
    for by, kept_back in holds.items():
        keep_back(writer, kept_back, actor=by, now=now)
    _set_marks(writer, marks)
    rows = {
        "id": pa.array([row[0] for row in statuses], pa.string()),
        "sync_status": pa.array([row[1] for row in statuses], pa.string()),
        "sync_error": pa.array([row[2] for row in statuses], pa.string()),
        "meter_event_identifier": pa.array([row[3] for row in statuses], pa.string()),
        "synced_at": times([row[4] and utc(row[4]) for row in statuses]),
    }
    writer.amend("events", pa.table(rows), key="id")
    show_settled(writer, list(kept))


def _events_of_kind(rows: Rows, kind: str, ids: Sequence[str]) -> set[str]:
    """Those of some events that another settlement of a kind counts for."""
    query = f"""SELECT DISTINCT x.event_id FROM settlement_events x JOIN settlements s ON s.id = x.settlement_id
                WHERE s.state IN {LIVE!r} AND s.kind = ? AND x.event_id IN (SELECT unnest(?))"""
    return {row[0] for row in rows(query, [kind, list(ids)])}


def _set_marks(writer: Writer, marks: Mapping[str, str]) -> None:
    rows = {"id": pa.array(list(marks), pa.string()), "marks": pa.array(list(marks.values()), pa.string())}
    writer.amend("events", pa.table(rows), key="id")


def _ids_of(rows: Rows, settlement_id: str) -> list[str]:
    return [row[0] for row in rows("SELECT event_id FROM settlement_events WHERE settlement_id = ?", [settlement_id])]


def _settlements(rows: Rows, where: str, values: Sequence[Any] = ()) -> list[Settlement]:
    found = rows(f"SELECT {', '.join(COLUMNS)} FROM settlements WHERE {where}", values)
    aware: list[list[Any]] = [[utc(one) if isinstance(one, datetime) else one for one in row] for row in found]
    return [Settlement(*row) for row in aware]


def _detail(settlement: Settlement) -> dict[str, Any]:
    """The circumstances of a settlement for the audit log."""
    return {
        "settlement": settlement.id,
        "kind": settlement.kind,
        "customer": settlement.customer_id,
        "month": settlement.month,
        "credits": plain_decimal(settlement.credits),
        "usd": plain_decimal(settlement.amount_usd),
        "amount": settlement.amount,
        "currency": settlement.currency,
    }
