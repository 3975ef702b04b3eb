"""The ledger's tables for Stripe: intents, coverage, and the sync status of events that follows from them.

Everything that belongs together is one transaction: an intent is never there without its coverage, an event
never says "sending" without an intent. Knows nothing of Stripe itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from billing_core.ledger import holds, sent_elsewhere, sync_queries
from billing_core.ledger.engine import Engine, Writer
from billing_core.ledger.late_usage import after_closes
from billing_core.ledger.schema import DUPLICATE, ELSEWHERE, SENT, VOID, times, utc, with_mark, without_mark
from billing_core.ledger.sent_elsewhere import NOTHING_KEPT_BACK, KeepBack
from billing_core.ledger.settlements import show_settled
from billing_core.rating.events import NO_CUSTOMER
from billing_core.types import Flag
from billing_core.values.usage_frame import hour_of


@dataclass(frozen=True, slots=True)
class PlannedPush:
    """The result of planning a push: counts of new intents and of newly held events, some of them `named` with why.

    Of the `held_corrections` only a difference is held: their events were sent before. They are among all that is held.
    """

    intents: int
    newly_held: int
    named: tuple[str, ...] = ()
    held_corrections: int = 0


@dataclass(frozen=True, slots=True)
class IntentUpdate:
    """A new state of an intent. `state` as stored; `at` aware UTC; `attempts` so far, `None` leaves the count alone."""

    identifier: str
    state: str
    at: datetime
    attempts: int | None = None
    text: str | None = None
    code: str | None = None
    request_id: str | None = None
    unknown_since: datetime | None = None


_TAKEN = """SELECT DISTINCT meter_event_identifier FROM events WHERE meter_event_identifier IS NOT NULL
            AND EXISTS (SELECT 1 FROM imports) AND meter_event_identifier NOT IN (SELECT identifier FROM intents)"""
"""Identifiers that imported events came with: another ledger sent them to the same account."""


_CUSTOMERS_OF_A_PUSH = f"""
WITH owing AS (SELECT id, customer_id FROM events WHERE sync_status IN ('pending', 'excluded', 'error')
               OR contains(coalesce(marks, ''), '{Flag.CHANGED_AFTER_SENDING}'))
SELECT customer_id FROM owing WHERE customer_id IS NOT NULL
UNION SELECT c.customer_id FROM coverage c JOIN owing o ON o.id = c.event_id
UNION SELECT x.customer_id FROM settlement_events x JOIN owing o ON o.id = x.event_id WHERE x.customer_id IS NOT NULL
UNION SELECT customer_id FROM intents WHERE state IN ('open', 'sending')
"""


class Candidates:
    """Everything a push is planned from, read in the transaction that will write the plan down."""

    def __init__(self, writer: Writer, settled_before: datetime) -> None:
        self.events = writer.read(sync_queries.candidates(settled_before))
        self.covered = writer.read(sync_queries.covered_candidates(settled_before))
        rest = writer.read(sync_queries.carried_credits()).to_pylist()
        self.carried = {row["customer_id"]: row["carried"] for row in rest}
        firsts = [pc.min(self.covered["stamp"]).as_py(), pc.min(self.events["timestamp"]).as_py()]
        oldest = min((hour_of(utc(first)) for first in firsts if first is not None), default=None)
        newest = None if oldest is None else sync_queries.newest_revisions(oldest, settled_before)
        rows = [] if newest is None else writer.read(newest).to_pylist()
        self.revisions = {(row["customer_id"], row["source"]): row["revision"] for row in rows}
        self.taken = frozenset(row[0] for row in writer.rows(_TAKEN))


def _nothing(_writer: Writer) -> None:
    """There is nothing to prepare."""


class SyncStore:
    """Intents and their delivery, and what people decide about holds; over the same engine as `Ledger`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    # ── writing intents down ─────────────────────────────────────────────────────────────────────

    def freeze(
        self,
        make_plan: Callable[[Candidates], Any],
        *,
        settled_before: datetime,
        push_id: str,
        now: datetime,
        keep: bool = True,
        prepare: Callable[[Writer], object] = _nothing,
        keep_back: KeepBack = NOTHING_KEPT_BACK,
    ) -> tuple[PlannedPush, pa.Table, int]:
        """Plan a push and write its intents and holds down in one transaction; returns counts, the new intents, and how
        many events are held.

        `prepare` puts in order who pays, before anything else. Events of `keep_back` are put on hold, with the reason,
        until somebody releases them. `make_plan` gets `Candidates` and returns a plan
        (`billing_core.stripe.intents.PushPlan`). With `keep` false the transaction is taken back: a preview that goes
        through every step.
        """
        try:
            with self.engine.transaction() as writer:
                now = after_closes(writer, now)
                prepare(writer)
                _withdraw(writer, keep_back.withdrawn, now=now)
                show_settled(writer)
                holds.settle_moot_events(writer)
                holds.release_moot(writer, now)
                kept_back = sent_elsewhere.hold_sent_elsewhere(writer, keep_back, now=now)
                given = Candidates(writer, settled_before)
                sent_elsewhere.leave_out_fractions(writer, given.carried)
                plan = make_plan(given)
                newly = kept_back + _write(writer, plan, given.events, push_id=push_id, now=now)
                held, corrections = holds.held_events(writer)
                writer.advance(push_id)
                named = holds.named_holds(writer, now)
                result = PlannedPush(plan.intents.num_rows, newly, named, corrections), plan.intents, held
                if not keep:
                    raise _TakeBack
        except _TakeBack:
            pass
        return result

    def candidates(self, settled_before: datetime, *, prepare: Callable[[Writer], object] = _nothing) -> Candidates:
        """The events that `freeze` would plan a push from now; nothing is changed."""
        try:
            with self.engine.transaction() as writer:
                prepare(writer)
                show_settled(writer)
                holds.settle_moot_events(writer)
                given = Candidates(writer, settled_before)
                raise _TakeBack
        except _TakeBack:
            pass
        return given

    def hold_hopeless(self, *, now: datetime, push_id: str) -> tuple[PlannedPush, int]:
        """Hold events that cannot be sent for want of a customer; returns that, and how many events are held in all."""
        with self.engine.transaction() as writer:
            now = after_closes(writer, now)
            show_settled(writer)
            holds.settle_moot_events(writer)
            holds.release_moot(writer, now)
            newly = holds.hold_hopeless(writer, now)
            if newly:
                writer.advance(push_id)
            held, corrections = holds.held_events(writer)
            return PlannedPush(0, newly, holds.named_holds(writer, now), corrections), held

    def anything_to_send(self, settled_before: datetime) -> bool:
        """Whether a push would find events to plan or intents to continue with."""
        found = self.engine.read(sync_queries.a_candidate(settled_before)).num_rows
        return bool(found) or bool(self.engine.read(sync_queries.an_open_intent()).num_rows)

    def customers_of_a_push(self) -> set[str]:
        """Every customer a push may send usage for, or take usage back from."""
        return {row[0] for row in self.engine.rows(_CUSTOMERS_OF_A_PUSH)}

    def open_intents(self) -> pa.Table:
        """Intents whose outcome is not known, oldest first."""
        return self.engine.read(sync_queries.open_intents())

    # ── sending ──────────────────────────────────────────────────────────────────────────────────

    def mark_attempt(self, identifiers: Sequence[str], *, at: datetime) -> None:
        """Note that intents are about to be sent. Committed before any of the calls."""
        with self.engine.transaction() as writer:
            writer.rows(
                """UPDATE intents SET state = 'sending', attempts = attempts + 1, last_attempt_at = ?,
                   first_attempt_at = coalesce(first_attempt_at, ?), unknown_since = coalesce(unknown_since, ?)
                   WHERE identifier IN (SELECT unnest(?))""",
                [at] * 3 + [list(identifiers)],
            )

    def settle(self, answers: Sequence[IntentUpdate], *, push_id: str) -> None:
        """Write down the outcomes of intents, and the status of the events they are the newest intent of."""
        if not answers:
            return
        with self.engine.transaction() as writer:
            _settle(writer, answers)
            writer.advance(push_id)

    def confirm(self, identifiers: Sequence[str], *, at: datetime, push_id: str) -> int:
        """Confirm accepted intents, and events whose newest they are, by Stripe's sums; returns how many."""
        if not identifiers:
            return 0
        with self.engine.transaction() as writer:
            rows = pa.table({"identifier": list(identifiers)})
            stamped = rows.append_column("state", pa.array(["confirmed"] * len(rows)))
            writer.amend("intents", stamped.append_column("confirmed_at", times([at] * len(rows))), key="identifier")
            events = stamped.rename_columns(["meter_event_identifier", "sync_status"])
            writer.amend("events", events, key="meter_event_identifier", unless=ELSEWHERE)
            writer.advance(push_id)
        return len(identifiers)

    # ── what people decide ───────────────────────────────────────────────────────────────────────

    def retry(self, ids: Sequence[str], *, actor: str, now: datetime) -> int:
        """Make events in error pending, so that the next push sends what they still owe; returns how many."""
        with self.engine.transaction() as writer:
            changed = holds.retry_events(writer, ids, actor=actor, now=now)
            writer.advance(f"retry by {actor}")
        return changed

    def hold(self, ids: Sequence[str], *, reason: str, actor: str, now: datetime) -> int:
        """Hold pending events until somebody releases them; returns how many."""
        with self.engine.transaction() as writer:
            now = after_closes(writer, now)
            held = holds.put_on_hold(writer, dict.fromkeys(ids, reason), actor=actor, now=now)
            writer.advance(f"hold by {actor}")
        return held

    def release(self, ids: Sequence[str], *, actor: str, now: datetime) -> int:
        """Release held events, so that the next push sends them if the rules allow; returns how many."""
        with self.engine.transaction() as writer:
            chosen = holds.release_decided(writer, ids, actor=actor, now=now)
            sent_elsewhere.decide_sent_elsewhere(writer, chosen, actor=actor, now=now)
            writer.advance(f"release by {actor}")
        return len(chosen)

    # ── reading intents ──────────────────────────────────────────────────────────────────────────

    def identifiers_of(self, push_id: str) -> list[str]:
        """The identifiers of the intents a push wrote down, in order: the audit log keeps their hash."""
        query = "SELECT identifier FROM intents WHERE push_id = ? ORDER BY identifier"
        return [row[0] for row in self.engine.rows(query, [push_id])]

    def values_of(self, identifiers: Iterable[str]) -> int:
        """The whole credits of some intents together."""
        query = "SELECT coalesce(sum(value), 0) FROM intents WHERE identifier IN (SELECT unnest(?))"
        return int(self.engine.rows(query, [list(identifiers)])[0][0])

    def states_of(self, identifiers: Iterable[str]) -> dict[str, str]:
        """Identifier → state, for those of the given intents that this ledger wrote."""
        query = "SELECT identifier, state FROM intents WHERE identifier IN (SELECT unnest(?))"
        return dict(self.engine.rows(query, [list(identifiers)]))

    def unconfirmed_customers(self) -> list[tuple[str, datetime, datetime]]:
        """Customers with accepted intents that no summary has confirmed, and the first and last of their stamps."""
        query = """SELECT customer_id, min(stamp), max(stamp) FROM intents WHERE state = 'accepted'
                   GROUP BY customer_id ORDER BY customer_id"""
        return [(row[0], utc(row[1]), utc(row[2])) for row in self.engine.rows(query)]

    def unknown_customers(self, before: datetime) -> list[tuple[str, datetime, datetime]]:
        """Customers with intents whose outcome has been unknown since before a time; first and last stamps."""
        query = """SELECT customer_id, min(stamp), max(stamp) FROM intents
                   WHERE state = 'sending' AND unknown_since < ? GROUP BY customer_id ORDER BY customer_id"""
        return [(row[0], utc(row[1]), utc(row[2])) for row in self.engine.rows(query, [before])]

    def doubtful_duplicates(self) -> list[tuple[str, datetime, datetime]]:
        """Customers with intents that Stripe had before they were tried from here; first and last of their stamps."""
        query = """SELECT customer_id, min(stamp), max(stamp) FROM intents WHERE state = 'sending' AND code = ?
                   GROUP BY customer_id ORDER BY customer_id"""
        return [(row[0], utc(row[1]), utc(row[2])) for row in self.engine.rows(query, [DUPLICATE])]

    def keep_back(
        self, answers: Sequence[IntentUpdate], found: KeepBack, *, now: datetime, push_id: str
    ) -> PlannedPush:
        """Write down that intents are not what Stripe has, and hold the events they cover."""
        with self.engine.transaction() as writer:
            now = after_closes(writer, now)
            _settle(writer, answers)
            newly = sent_elsewhere.hold_sent_elsewhere(writer, found, now=now)
            writer.advance(push_id)
            return PlannedPush(0, newly, holds.named_holds(writer, now))

    def events_of(self, identifiers: Iterable[str]) -> dict[str, list[str]]:
        """Intent → the events it covers."""
        query = """SELECT identifier, list(event_id ORDER BY event_id) FROM coverage
                   WHERE identifier IN (SELECT unnest(?)) GROUP BY identifier"""
        return dict(self.engine.rows(query, [list(identifiers)]))

    def intents_at(self, customer_id: str, start: datetime, end: datetime) -> list[dict[str, Any]]:
        """Valid intents of a customer with stamps in `[start, end)`: what confirmation needs to know of each."""
        names = ("identifier", "stamp", "value", "state", "unknown_since", "answered_at", "last_attempt_at", "code")
        query = f"""SELECT {", ".join(names)} FROM intents
                    WHERE customer_id = ? AND stamp >= ? AND stamp < ? AND state NOT IN ('rejected', 'void')
                    ORDER BY stamp, identifier"""
        rows = self.engine.rows(query, [customer_id, start, end])
        return [_aware(dict(zip(names, row, strict=True))) for row in rows]

    def intents_of_event(self, event_id: str) -> list[dict[str, Any]]:
        """Every intent that ever covered an event, oldest first, with the event's part as `part`."""
        found = self.engine.read(sync_queries.intents_of_event(event_id))
        return [_aware(row) for row in found.to_pylist()]


class _TakeBack(Exception):
    """Ends a transaction whose work was only a preview."""


# ── inside transactions ──────────────────────────────────────────────────────────────────────────


def _write(writer: Writer, plan: Any, events: pa.Table, *, push_id: str, now: datetime) -> int:
    intents, count = plan.intents, plan.intents.num_rows
    if count:
        extra = {
            "state": pa.array(["open"] * count),
            "created_at": times([now] * count),
            "attempts": pa.array([0] * count, pa.int64()),
            "push_id": pa.array([push_id] * count),
        }
        for name, column in extra.items():
            intents = intents.append_column(name, column)
        writer.append("intents", intents)
        writer.append("coverage", plan.coverage)
        writer.amend("events", _now_sending(plan.coverage, events), key="id")
    if plan.carried:
        writer.amend("events", _now_carried(plan.carried, events), key="id")
    if plan.complete:
        _now_complete(writer, plan.complete)
    on_their_way = pc.unique(plan.coverage["event_id"])
    return holds.hold_planned(writer, plan.holds, events, on_their_way, now) + holds.hold_hopeless(writer, now)


def _now_sending(coverage: pa.Table, events: pa.Table) -> pa.Table:
    """Every covered event with the identifier of its newest intent: the one for the customer it has now.

    One that has none any more is only given back, which is not the end of it: it still has to be billed.
    """
    plain = events.select(["id", "customer_id", "marks"])
    mine = coverage.join(plain, ["event_id", "customer_id"], ["id", "customer_id"], "inner")
    back = coverage.join(mine.select(["event_id"]), "event_id", join_type="left anti")
    back = (
        back.join(plain.select(["id", "marks"]), "event_id", "id", "inner")
        .group_by("event_id")
        .aggregate([("identifier", "max"), ("marks", "max")])
        .rename_columns({"identifier_max": "identifier", "marks_max": "marks"})
    )
    rows = pa.concat_tables([t.select(["event_id", "identifier", "marks"]) for t in (mine, back)])
    nobody = events.filter(pc.is_null(events["customer_id"]))["id"]
    is_nobodys = pc.is_in(rows["event_id"], nobody.combine_chunks())
    return pa.table(
        {
            "id": rows["event_id"],
            "meter_event_identifier": pc.if_else(is_nobodys, pa.scalar(None, pa.string()), rows["identifier"]),
            "sync_status": pc.if_else(is_nobodys, "error", "sending"),
            "sync_error": pc.if_else(is_nobodys, NO_CUSTOMER, pa.scalar(None, pa.string())),
            "marks": _mapped(rows["marks"], lambda marks: without_mark(marks, Flag.CARRIED)),
        }
    )


def _now_complete(writer: Writer, ids: Sequence[str]) -> None:
    """Events that owe nothing: they stand where the newest intent for their customer stands."""
    writer.rows(
        f"""UPDATE events SET meter_event_identifier = found.newest.identifier, sync_error = NULL,
                   sync_status = CASE found.newest.state WHEN 'accepted' THEN 'processed'
                                 WHEN 'confirmed' THEN 'confirmed' ELSE 'sending' END
            FROM (SELECT c.event_id, c.customer_id, max_by({{'identifier': i.identifier, 'state': i.state}},
                         (i.created_at, i.identifier)) AS newest
                  FROM coverage c JOIN intents i USING (identifier)
                  WHERE i.state NOT IN {VOID!r} AND c.event_id IN (SELECT unnest(?)) GROUP BY ALL) found
            WHERE events.id = found.event_id AND events.customer_id = found.customer_id""",
        [list(ids)],
    )


def _now_carried(ids: list[str], events: pa.Table) -> pa.Table:
    rows = events.filter(pc.is_in(events["id"], pa.array(ids)))
    marks = _mapped(rows["marks"], lambda text: with_mark(text, Flag.CARRIED))
    return pa.table({"id": rows["id"], "marks": marks})


def _mapped(column: pa.ChunkedArray, change: Callable[[str], str]) -> pa.Array:
    """A text column with few distinct values, changed."""
    encoded = column.combine_chunks().fill_null("").dictionary_encode()
    return pa.array([change(text) for text in encoded.dictionary.to_pylist()], pa.string()).take(encoded.indices)


def _withdraw(writer: Writer, identifiers: Sequence[str], *, now: datetime) -> None:
    """Intents that were never tried count for nothing; what they cover is pending again."""
    text = "withdrawn before it was tried: what Stripe counts of its hour is not what was sent from here"
    _settle(writer, [IntentUpdate(identifier, "void", now, text=text) for identifier in identifiers])


def _settle(writer: Writer, answers: Sequence[IntentUpdate]) -> None:
    if not answers:
        return
    writer.amend("intents", _intent_rows(answers), key="identifier")
    if counted := [a for a in answers if a.attempts is not None]:
        rows = {"identifier": [a.identifier for a in counted], "attempts": [a.attempts for a in counted]}
        writer.amend("intents", pa.table(rows), key="identifier")
    for state, of_state in _by_state(answers).items():
        _show_on_events(writer, state, of_state)


def _intent_rows(answers: Sequence[IntentUpdate]) -> pa.Table:
    return pa.table(
        {
            "identifier": pa.array([a.identifier for a in answers], pa.string()),
            "state": pa.array([a.state for a in answers], pa.string()),
            "answered_at": times([a.at for a in answers]),
            "answer": pa.array([a.text for a in answers], pa.string()),
            "code": pa.array([a.code for a in answers], pa.string()),
            "request_id": pa.array([a.request_id for a in answers], pa.string()),
            "unknown_since": times([a.unknown_since for a in answers]),
        }
    )


def _by_state(answers: Sequence[IntentUpdate]) -> dict[str, list[IntentUpdate]]:
    grouped: dict[str, list[IntentUpdate]] = {}
    for answer in answers:
        grouped.setdefault(answer.state, []).append(answer)
    return grouped


STATUS_OF = {"accepted": "processed", "confirmed": "confirmed", "rejected": "error", "void": "pending"}


def _show_on_events(writer: Writer, state: str, answers: Sequence[IntentUpdate]) -> None:
    status = STATUS_OF.get(state, "sending")
    done = status in {"processed", "confirmed"}
    texts = [None if done or status == "pending" else a.text for a in answers]
    columns = {
        "meter_event_identifier": pa.array([a.identifier for a in answers], pa.string()),
        "sync_status": pa.array([status] * len(answers), pa.string()),
        "sync_error": pa.array(texts, pa.string()),
    }
    if done:
        columns["synced_at"] = times([a.at for a in answers])
    writer.amend("events", pa.table(columns), key="meter_event_identifier", unless=ELSEWHERE)
    if state == "rejected":
        _reject_events(writer, [a.identifier for a in answers])


def _reject_events(writer: Writer, identifiers: Sequence[str]) -> None:
    """Whatever a rejected intent covers is in error, also if newer intents (a correction, say) went well."""
    writer.rows(
        f"""UPDATE events SET sync_status = 'error', sync_error = rejected.answer,
                   meter_event_identifier = rejected.identifier
            FROM (SELECT c.event_id, max(c.identifier) AS identifier, max_by(i.answer, c.identifier) AS answer
                  FROM coverage c JOIN intents i USING (identifier)
                  WHERE c.identifier IN (SELECT unnest(?)) GROUP BY c.event_id) rejected
            WHERE events.id = rejected.event_id AND (events.sync_status IN {SENT!r}
                  OR (events.sync_status = 'error' AND events.meter_event_identifier IS NULL))""",
        [list(identifiers)],
    )


def _aware(row: dict[str, Any]) -> dict[str, Any]:
    return {name: utc(value) if isinstance(value, datetime) else value for name, value in row.items()}
