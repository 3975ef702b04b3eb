"""The ledger's tables for Stripe: intents, coverage, holds, and the sync status of events that follows from them.

Everything that belongs together is one transaction: an intent is never there without its coverage, an event
never says "sending" without an intent. Knows nothing of Stripe itself.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.errors import SettingsError
from billing_core.ledger.compiled import Bound, Question, ask, bound_text, bound_time
from billing_core.ledger.engine import Engine, Writer
from billing_core.ledger.late_usage import after_closes
from billing_core.ledger.schema import (
    FLAG_SEPARATOR,
    SENT,
    coverage_table,
    events_table,
    holds_table,
    intents_table,
)
from billing_core.rating.events import NO_CUSTOMER
from billing_core.types import Flag
from billing_core.values.usage_frame import hour_of

VOID = ("rejected", "void")
"""States of intents that count for nothing: Stripe refused them, or they never arrived and were withdrawn."""

NAMED = 100
"""Newly held events that a push names; the page and `events --status error` have them all."""

DELIVERED = ("accepted", "confirmed")
"""States of intents that Stripe has."""

OPEN = ("open", "sending")
"""States of intents whose end is not known."""

MARK_GONE = "the earlier system's mark of having billed it is gone from the trace; retry to bill it from here"

ELSEWHERE = "billed_elsewhere"
"""Column of events that an import brought as billed: never sent from here, and their identifier is not one of ours."""

SENT_ELSEWHERE = Flag.SENT_ELSEWHERE.value
"""Cause of holds on usage that Stripe may count already."""

DECIDED_BY_PEOPLE = ("on_hold", SENT_ELSEWHERE)
"""Causes of holds that end only when somebody releases them."""

DUPLICATE = "duplicate"
"""Code of an intent whose identifier Stripe had before this ledger tried it: what is stored there may be another."""

TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True)
class Difference:
    """The credits Stripe `counted` for a customer in the UTC hour that begins at `hour` (aware), and those `delivered`
    from here or known to have been billed before.
    """

    customer_id: str
    hour: datetime
    counted: Decimal
    delivered: Decimal

    @property
    def credits(self) -> Decimal:
        """The credits Stripe counts that were not sent from here; negative if it counts fewer."""
        return self.counted - self.delivered


@dataclass(frozen=True, slots=True)
class KeepBack:
    """The events a push may not send because Stripe may count them already.

    Attributes
    ----------
    reasons:
        Events to be put on hold → why.
    differences:
        What Stripe's sums showed now for the first time.
    withdrawn:
        Intents that were written down and never tried, and carry such usage.
    """

    reasons: Mapping[str, str] = field(default_factory=dict)
    differences: Sequence[Difference] = ()
    withdrawn: Sequence[str] = ()


NOTHING_KEPT_BACK = KeepBack()


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


@dataclass(frozen=True, slots=True)
class PushRun:
    """One push in the push log; `outcome`: running, done, failed."""

    push_id: str
    started_at: datetime
    ended_at: datetime | None
    actor: str
    outcome: str
    result: Mapping[str, Any]
    error: str | None


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object read from Stripe, as JSON text, and when it was read."""

    id: str
    customer_id: str | None
    content: str
    read_at: datetime


@dataclass(frozen=True, slots=True)
class ShownStatus:
    """The sync status of an event, to be shown at its trace in Langfuse. `timestamp` is its start, aware UTC."""

    event_id: str
    project_id: str | None
    timestamp: datetime
    environment: str | None
    status: str
    meter_event_identifier: str | None
    sync_error: str | None
    is_legacy: bool


_TAKEN = """SELECT DISTINCT meter_event_identifier FROM events WHERE meter_event_identifier IS NOT NULL
            AND EXISTS (SELECT 1 FROM imports) AND meter_event_identifier NOT IN (SELECT identifier FROM intents)"""
"""Identifiers that imported events came with: another ledger sent them to the same account."""


_CUSTOMERS_OF_A_PUSH = f"""
WITH owing AS (SELECT id, customer_id FROM events WHERE sync_status IN ('pending', 'excluded', 'error')
               OR contains(coalesce(marks, ''), '{Flag.CHANGED_AFTER_SENDING}'))
SELECT customer_id FROM owing WHERE customer_id IS NOT NULL
UNION SELECT c.customer_id FROM coverage c JOIN owing o ON o.id = c.event_id
UNION SELECT customer_id FROM intents WHERE state IN ('open', 'sending')
"""


class Candidates:
    """Everything a push is planned from, read in the transaction that will write the plan down."""

    def __init__(self, writer: Writer, settled_before: datetime) -> None:
        settled = bound_time(settled_before)
        self.events = writer.read(candidates(settled_before))
        self.covered = writer.read(ask(_covered, settled))
        self.carried = {row["customer_id"]: row["carried"] for row in writer.read(ask(carried)).to_pylist()}
        times = [pc.min(self.covered["stamp"]).as_py(), pc.min(self.events["timestamp"]).as_py()]
        oldest = min((hour_of(_utc(time)) for time in times if time is not None), default=None)
        rows = [] if oldest is None else writer.read(ask(_revisions, bound_time(oldest), settled)).to_pylist()
        self.revisions = {(row["customer_id"], row["source"]): row["revision"] for row in rows}
        self.taken = frozenset(row[0] for row in writer.rows(_TAKEN))


CREDITS = pa.decimal128(18, 6)


def _nothing(_writer: Writer) -> None:
    """There is nothing to prepare."""


class SyncStore:
    """Intents, holds, the push log and what was read from Stripe, in the ledger; over the same engine as `Ledger`."""

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
                _not_pending(writer)
                _release_moot(writer, now)
                kept_back = _hold_sent_elsewhere(writer, keep_back, now=now)
                given = Candidates(writer, settled_before)
                _leave_out_fractions_sent_elsewhere(writer, given.carried)
                plan = make_plan(given)
                newly = kept_back + _write(writer, plan, given.events, push_id=push_id, now=now)
                held, corrections = _held(writer)
                writer.advance(push_id)
                named = _named_holds(writer, now)
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
                _not_pending(writer)
                given = Candidates(writer, settled_before)
                raise _TakeBack
        except _TakeBack:
            pass
        return given

    def hold_hopeless(self, *, now: datetime, push_id: str) -> tuple[PlannedPush, int]:
        """Hold events that cannot be sent for want of a customer; returns that, and how many events are held in all."""
        with self.engine.transaction() as writer:
            now = after_closes(writer, now)
            _not_pending(writer)
            _release_moot(writer, now)
            newly = _hold_hopeless(writer, now)
            if newly:
                writer.advance(push_id)
            held, corrections = _held(writer)
            return PlannedPush(0, newly, _named_holds(writer, now), corrections), held

    def anything_to_send(self, settled_before: datetime) -> bool:
        """Whether a push would find events to plan or intents to continue with."""
        found = self.engine.read(ask(_a_candidate, bound_time(settled_before))).num_rows
        return bool(found) or bool(self.engine.read(ask(_an_open_intent)).num_rows)

    def customers_of_a_push(self) -> set[str]:
        """Every customer a push may send usage for, or take usage back from."""
        return {row[0] for row in self.engine.rows(_CUSTOMERS_OF_A_PUSH)}

    def open_intents(self) -> pa.Table:
        """Intents whose outcome is not known, oldest first."""
        return self.engine.read(ask(_open_intents))

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
        """Mark accepted intents as confirmed by Stripe's sums, with the events they are the newest intent of; returns
        how many.
        """
        if not identifiers:
            return 0
        with self.engine.transaction() as writer:
            rows = pa.table({"identifier": list(identifiers)})
            stamped = rows.append_column("state", pa.array(["confirmed"] * len(rows)))
            writer.amend("intents", stamped.append_column("confirmed_at", _times([at] * len(rows))), key="identifier")
            events = stamped.rename_columns(["meter_event_identifier", "sync_status"])
            writer.amend("events", events, key="meter_event_identifier", unless=ELSEWHERE)
            writer.advance(push_id)
        return len(identifiers)

    # ── what people decide ───────────────────────────────────────────────────────────────────────

    def retry(self, ids: Sequence[str], *, actor: str, now: datetime) -> int:
        """Make events in error pending again, so that the next push makes new intents for what they still owe; returns
        how many.
        """
        with self.engine.transaction() as writer:
            changed = retry_events(writer, ids, actor=actor, now=now)
            writer.advance(f"retry by {actor}")
        return changed

    def hold(self, ids: Sequence[str], *, reason: str, actor: str, now: datetime) -> int:
        """Hold pending events until somebody releases them; returns how many."""
        with self.engine.transaction() as writer:
            now = after_closes(writer, now)
            held = _put_on_hold(writer, dict.fromkeys(ids, reason), actor=actor, now=now)
            writer.advance(f"hold by {actor}")
        return held

    def release(self, ids: Sequence[str], *, actor: str, now: datetime) -> int:
        """Release held events, so that the next push sends them if the rules allow; returns how many."""
        with self.engine.transaction() as writer:
            rows = writer.rows(
                f"""SELECT event_id FROM holds WHERE {ACTIVE} AND cause IN {DECIDED_BY_PEOPLE!r}
                    AND event_id IN (SELECT unnest(?))""",
                [list(ids)],
            )
            chosen = [row[0] for row in rows]
            _release(writer, chosen, actor=actor, now=now)
            _say_released(writer, chosen)
            _decide_sent_elsewhere(writer, chosen, actor=actor, now=now)
            writer.advance(f"release by {actor}")
        return len(chosen)

    # ── journals ─────────────────────────────────────────────────────────────────────────────────

    def bind(self, meter_id: str, livemode: bool | None, *, keep: bool) -> None:
        """Bind the ledger to one meter of one account on the first push; with `keep` false only check it.

        Raises
        ------
        SettingsError
            If it was pushed to another: what was sent there would count as sent here.
        """
        value = json.dumps({"meter": meter_id, "livemode": livemode})
        with self.engine.transaction() as writer:
            found = writer.rows("SELECT value FROM meta WHERE name = 'stripe_meter'")
            if not found and keep:
                writer.insert("meta", {"name": "stripe_meter", "value": value})
            elif found and found[0][0] != value:
                was = json.loads(found[0][0])
                raise SettingsError(
                    f"STRIPE_API_KEY: this ledger was pushed to the meter {was['meter']} (livemode {was['livemode']}) "
                    f"and this key leads to {meter_id} (livemode {livemode}): another account or mode. Use the key it "
                    "was pushed with, or another BILLING_WAREHOUSE_URL"
                )

    def bound_meter(self) -> str | None:
        """The id of the meter the ledger is bound to; `None` before the first push."""
        rows = self.engine.rows("SELECT value FROM meta WHERE name = 'stripe_meter'")
        return json.loads(rows[0][0])["meter"] if rows else None

    def start_push(self, push_id: str, *, actor: str, now: datetime) -> None:
        """Start a line in the push log; one that never ends was killed."""
        with self.engine.transaction() as writer:
            writer.insert(
                "pushes", {"push_id": push_id, "started_at": now, "actor": actor, "outcome": "running", "result": "{}"}
            )

    def end_push(self, push_id: str, *, now: datetime, outcome: str, result: str, error: str | None) -> None:
        """End a line of the push log; `result` is its document as JSON text."""
        values = {"push_id": push_id, "ended_at": now, "outcome": outcome, "result": result, "error": error}
        with self.engine.transaction() as writer:
            writer.update("pushes", values, key="push_id")

    def last_pushes(self, limit: int = 20) -> list[PushRun]:
        """The newest pushes of the push log, newest first."""
        query = """SELECT push_id, started_at, ended_at, actor, outcome, result, error FROM pushes
                   ORDER BY started_at DESC LIMIT ?"""
        return [
            PushRun(row[0], _utc(row[1]), row[2] and _utc(row[2]), row[3], row[4], json.loads(row[5]), row[6])
            for row in self.engine.rows(query, [limit])
        ]

    def store_objects(self, kind: str, objects: Iterable[StoredObject], *, only_customer: str | None = None) -> None:
        """Replace all stored objects of a kind (of one customer) by those just read from Stripe."""
        rows = list(objects)
        with self.engine.transaction() as writer:
            if only_customer is None:
                writer.rows("DELETE FROM stripe_objects WHERE kind = ?", [kind])
            else:
                writer.rows("DELETE FROM stripe_objects WHERE kind = ? AND customer_id = ?", [kind, only_customer])
            if rows:
                table = {
                    "kind": pa.array([kind] * len(rows)),
                    "id": pa.array([row.id for row in rows], pa.string()),
                    "customer_id": pa.array([row.customer_id for row in rows], pa.string()),
                    "content": pa.array([row.content for row in rows], pa.string()),
                    "read_at": _times([row.read_at for row in rows]),
                }
                writer.append("stripe_objects", pa.table(table))

    def objects(self, kind: str, customer_id: str | None = None) -> list[StoredObject]:
        """The objects of a kind that were read from Stripe last (of one customer)."""
        query = "SELECT id, customer_id, content, read_at FROM stripe_objects WHERE kind = ?"
        values = [kind]
        if customer_id is not None:
            query, values = f"{query} AND customer_id = ?", [kind, customer_id]
        return [StoredObject(row[0], row[1], row[2], _utc(row[3])) for row in self.engine.rows(query, values)]

    def store_reconciliation(self, *, actor: str, now: datetime, start: datetime, end: datetime, result: str) -> None:
        """Keep a reconciliation's document (JSON text)."""
        with self.engine.transaction() as writer:
            now = after_closes(writer, now)
            writer.insert(
                "reconciliations",
                {"id": uuid.uuid4().hex, "made_at": now, "actor": actor, "window_start": start, "window_end": end,
                 "result": result},
            )  # fmt: skip

    def last_reconciliation(self) -> str | None:
        """The newest reconciliation as JSON text; `None` before the first."""
        rows = self.engine.rows("SELECT result FROM reconciliations ORDER BY made_at DESC LIMIT 1")
        return rows[0][0] if rows else None

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
        return [(row[0], _utc(row[1]), _utc(row[2])) for row in self.engine.rows(query)]

    def unknown_customers(self, before: datetime) -> list[tuple[str, datetime, datetime]]:
        """Customers with intents whose outcome has been unknown since before a time; first and last stamps."""
        query = """SELECT customer_id, min(stamp), max(stamp) FROM intents
                   WHERE state = 'sending' AND unknown_since < ? GROUP BY customer_id ORDER BY customer_id"""
        return [(row[0], _utc(row[1]), _utc(row[2])) for row in self.engine.rows(query, [before])]

    def doubtful_duplicates(self) -> list[tuple[str, datetime, datetime]]:
        """Customers with intents that Stripe had before they were tried from here; first and last of their stamps."""
        query = """SELECT customer_id, min(stamp), max(stamp) FROM intents WHERE state = 'sending' AND code = ?
                   GROUP BY customer_id ORDER BY customer_id"""
        return [(row[0], _utc(row[1]), _utc(row[2])) for row in self.engine.rows(query, [DUPLICATE])]

    def keep_back(
        self, answers: Sequence[IntentUpdate], found: KeepBack, *, now: datetime, push_id: str
    ) -> PlannedPush:
        """Write down that intents are not what Stripe has, and hold the events they cover."""
        with self.engine.transaction() as writer:
            now = after_closes(writer, now)
            _settle(writer, answers)
            newly = _hold_sent_elsewhere(writer, found, now=now)
            writer.advance(push_id)
            return PlannedPush(0, newly, _named_holds(writer, now))

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
        found = self.engine.read(ask(_intents_of_event, bound_text(event_id)))
        return [_aware(row) for row in found.to_pylist()]

    # ── what Langfuse shows ──────────────────────────────────────────────────────────────────────

    def unshown_statuses(self, limit: int) -> list[ShownStatus]:
        """Events that got somewhere since their status was last written back to Langfuse, oldest first."""
        query = f"""SELECT e.id, e.project_id, e.timestamp, e.environment, e.sync_status, e.meter_event_identifier,
                           e.sync_error, contains(e.flags, '{Flag.LEGACY_BILLED}')
                    FROM events e ANTI JOIN write_backs w
                    ON w.event_id = e.id AND w.status = CAST(e.sync_status AS VARCHAR)
                    WHERE e.sync_status IN ('processed', 'confirmed', 'error') ORDER BY e.timestamp, e.id LIMIT ?"""
        return [ShownStatus(row[0], row[1], _utc(row[2]), *row[3:]) for row in self.engine.rows(query, [limit])]

    def remember_shown(self, statuses: Mapping[str, str], *, at: datetime) -> None:
        """Store the status of events that was written back to Langfuse, in place of an earlier one."""
        ids = list(statuses)
        rows = {"event_id": ids, "status": list(statuses.values()), "written_at": _times([at] * len(ids))}
        with self.engine.transaction() as writer:
            writer.rows("DELETE FROM write_backs WHERE event_id IN (SELECT unnest(?))", [ids])
            writer.append("write_backs", pa.table(rows))


class _TakeBack(Exception):
    """Ends a transaction whose work was only a preview."""


# ── expressions ──────────────────────────────────────────────────────────────────────────────────


def candidates(settled_before: datetime) -> Question:
    """A question: events that may owe credits or be owed some: settled, not on hold, pending or changed since they were
    sent.
    """
    return ask(_candidates, bound_time(settled_before))


def _candidates(settled_before: Bound) -> ir.Table:
    return candidate_events(settled_before)


def candidate_events(settled_before: Bound, *, on_hold_too: bool = False) -> ir.Table:
    """The Ibis expression of `candidates`, with events on hold if wanted."""
    e, h = events_table(), holds_table()
    changed = (
        e.sync_status.isin(SENT) & e.marks.contains(Flag.CHANGED_AFTER_SENDING) & e.meter_event_identifier.notnull()
    )
    wanted = e.filter(
        (e.sync_status == "pending") | changed | e.id.isin(_owed_back().id),
        ~e.flags.contains(Flag.LEGACY_BILLED),
        ~e.billed_elsewhere.fill_null(False),
        e.ended_at <= settled_before.scalar,
    )
    on_hold = h.filter(h.released_at.isnull(), h.cause.isin(DECIDED_BY_PEOPLE))
    doubtful = in_doubt()
    wanted = wanted.anti_join(doubtful, wanted.id == doubtful.event_id)
    if not on_hold_too:
        wanted = wanted.anti_join(on_hold, wanted.id == on_hold.event_id)
    return wanted.select("id", "customer_id", "timestamp", "credits_total", "sync_status", "marks")


def in_doubt() -> ir.Table:
    """Events with an intent that may or may not have arrived: they are not corrected before its outcome is known."""
    i = intents_table()
    tried = i.filter(i.state == "sending", i.unknown_since.notnull())
    return coverage_table().semi_join(tried, "identifier").select("event_id").distinct()


def _owed_back() -> ir.Table:
    """Events that cannot be billed as they are now, and were billed as they were before."""
    e, c = events_table(), valid_coverage()
    now_free = (e.sync_status == "excluded") | ((e.sync_status == "error") & e.customer_id.isnull())
    free = e.filter(now_free, e.meter_event_identifier.isnull()).select("id")
    mine = c.semi_join(free, c.event_id == free.id)
    parts = mine.group_by("event_id", "customer_id").aggregate(credits=mine.credits.sum())
    return parts.filter(parts.credits != 0).select(id="event_id").distinct()


def valid_coverage() -> ir.Table:
    """Coverage by intents that count, with the intent's `stamp`."""
    i = intents_table()
    valid = i.filter(i.state.notin(VOID)).select("identifier", "stamp")
    return coverage_table().join(valid, "identifier")


def _a_candidate(settled_before: Bound) -> ir.Table:
    return candidate_events(settled_before).limit(1)


def _covered(settled_before: Bound) -> ir.Table:
    return covered(candidate_events(settled_before))


def covered(events: ir.Table) -> ir.Table:
    """The credits covered by intents, of some events, per event and customer."""
    c = valid_coverage()
    mine = c.semi_join(events, c.event_id == events.id)
    summed = mine.group_by("event_id", "customer_id").aggregate(credits=mine.credits.sum(), stamp=mine.stamp.max())
    return summed.mutate(credits=summed.credits.cast("decimal(18, 6)"))


def carried() -> ir.Table:
    """The credits covered by valid intents that no whole credit has carried yet, per customer."""
    i = intents_table()
    valid = i.filter(i.state.notin(VOID))
    summed = valid.group_by("customer_id").aggregate(covered=valid.credits.sum(), sent=valid.value.sum())
    return summed.select("customer_id", carried=summed.covered - summed.sent.cast("decimal(38, 6)"))


def _revisions(since: Bound, settled_before: Bound) -> ir.Table:
    """Newest revision per customer and source, for stamps not before `since` and whatever ever covered candidates.

    Their own intents may be older than they are now: a changed event may begin later than it did when it was sent.
    """
    i, c = intents_table(), coverage_table()
    events = candidate_events(settled_before)
    own = c.semi_join(events, c.event_id == events.id)
    found = i.filter((i.stamp >= since.scalar) | i.identifier.isin(own.identifier))
    return found.group_by("customer_id", "source").aggregate(revision=found.revision.max())


def _open_intents() -> ir.Table:
    """Intents whose end is not known."""
    i = intents_table()
    return i.filter(i.state.isin(OPEN)).order_by("stamp", "identifier")


def _an_open_intent() -> ir.Table:
    return _open_intents().limit(1)


def _intents_of_event(event_id: Bound) -> ir.Table:
    c = coverage_table()
    part = c.filter(c.event_id == event_id.scalar).select("identifier", part="credits")
    return part.join(intents_table(), "identifier").order_by("created_at", "stamp")


# ── inside transactions ──────────────────────────────────────────────────────────────────────────

ACTIVE = "released_at IS NULL"


def _write(writer: Writer, plan: Any, events: pa.Table, *, push_id: str, now: datetime) -> int:
    intents, count = plan.intents, plan.intents.num_rows
    if count:
        extra = {
            "state": pa.array(["open"] * count),
            "created_at": _times([now] * count),
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
    return _hold_planned(writer, plan.holds, events, on_their_way, now) + _hold_hopeless(writer, now)


def _now_sending(coverage: pa.Table, events: pa.Table) -> pa.Table:
    """Every covered event with the identifier of its newest intent: the one for the customer it has now.

    One that has none any more is only given back, which is not the end of it: it still has to be billed.
    """
    plain = events.select(["id", "customer_id", "marks"])
    mine = coverage.join(plain, ["event_id", "customer_id"], ["id", "customer_id"], "inner")
    back = coverage.join(mine.select(["event_id"]), "event_id", join_type="left anti")
    back = back.join(plain.select(["id", "marks"]), "event_id", "id", "inner").group_by("event_id").aggregate(
        [("identifier", "max"), ("marks", "max")]
    ).rename_columns({"identifier_max": "identifier", "marks_max": "marks"})  # fmt: skip
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


def with_mark(marks: str, mark: str) -> str:
    """The marks of an event with one more."""
    return marks if mark in marks.split(FLAG_SEPARATOR) else FLAG_SEPARATOR.join(filter(None, [marks, mark]))


def without_mark(marks: str, mark: str) -> str:
    """The marks of an event without one."""
    return FLAG_SEPARATOR.join(m for m in marks.split(FLAG_SEPARATOR) if m and m != mark)


def _hold_planned(writer: Writer, holds: Sequence[Any], events: pa.Table, on_their_way: pa.Array, now: datetime) -> int:
    """Events a plan may not send. A pending one becomes an error; of a sent one only the correction waits."""
    _release_settled(writer, [hold.event_id for hold in holds], now)
    if not holds:
        return 0
    ids = [hold.event_id for hold in holds]
    query = f"SELECT event_id FROM holds WHERE {ACTIVE} AND event_id IN (SELECT unnest(?))"
    known = {row[0] for row in writer.rows(query, [ids])}
    unique = {hold.event_id: hold for hold in holds}
    fresh = [(h.event_id, h.cause, h.reason) for h in unique.values() if h.event_id not in known]
    _keep_back(writer, fresh, actor="push", now=now)
    reasons = {event_id: hold.reason for event_id, hold in unique.items()}
    chosen = events.filter(pc.is_in(events["id"], pa.array(list(reasons))))
    status = pc.if_else(pc.equal(chosen["sync_status"], "pending"), "error", chosen["sync_status"])
    # One of its two customers is held, the other is served: by now it says "sending", not what was read before.
    status = pc.if_else(pc.is_in(chosen["id"], on_their_way), "sending", status)
    texts = pa.array([reasons[event_id] for event_id in chosen["id"].to_pylist()], pa.string())
    writer.amend("events", pa.table({"id": chosen["id"], "sync_status": status, "sync_error": texts}), key="id")
    return len(fresh)


def _not_pending(writer: Writer) -> None:
    """Events whose intent came to nothing after they had changed: nothing to bill any more, or nobody to bill."""
    writer.rows(
        """UPDATE events SET sync_status = 'excluded', sync_error = NULL, meter_event_identifier = NULL
           WHERE sync_status = 'pending' AND credits_total = 0"""
    )
    writer.rows(
        """UPDATE events SET sync_status = 'error', sync_error = ?, meter_event_identifier = NULL
           WHERE sync_status = 'pending' AND customer_id IS NULL""",
        [NO_CUSTOMER],
    )
    writer.rows(
        f"""UPDATE events SET sync_status = 'processed', sync_error = NULL, meter_event_identifier = NULL
            WHERE sync_status = 'pending'
            AND (contains(flags, '{Flag.LEGACY_BILLED}') OR coalesce({ELSEWHERE}, false))"""
    )
    writer.rows(
        f"""UPDATE events SET sync_status = 'error', sync_error = ?
            WHERE sync_status = 'processed' AND meter_event_identifier IS NULL
            AND NOT contains(flags, '{Flag.LEGACY_BILLED}') AND NOT coalesce({ELSEWHERE}, false)
            AND contains(marks, '{Flag.CHANGED_AFTER_SENDING}')""",
        [MARK_GONE],
    )


def _hold_hopeless(writer: Writer, now: datetime) -> int:
    """Events in error that no intent caused: without a customer, or failed in the earlier system."""
    query = f"""FROM events WHERE sync_status = 'error' AND meter_event_identifier IS NULL
                AND id NOT IN (SELECT event_id FROM holds WHERE {ACTIVE})"""
    count = int(writer.rows(f"SELECT count(*) {query}")[0][0])
    if count:
        writer.rows(
            f"""INSERT INTO holds SELECT id, CASE WHEN contains(flags, '{Flag.NO_CUSTOMER}') THEN 'no_customer'
                ELSE 'failed_before' END, sync_error, 'push', ?, NULL, NULL {query}""",
            [now],
        )
    return count


def _held(writer: Writer) -> tuple[int, int]:
    """How many events are held, and of how many of these only a correction is."""
    query = f"""SELECT count(*), count(*) FILTER (WHERE e.sync_status IN {SENT!r})
                FROM holds h JOIN events e ON e.id = h.event_id WHERE h.{ACTIVE}"""
    held, corrections = writer.rows(query)[0]
    return int(held), int(corrections)


def _named_holds(writer: Writer, now: datetime) -> tuple[str, ...]:
    """The first events held in this transaction, in words."""
    query = f"""SELECT event_id, reason FROM holds WHERE held_at = ? AND actor = 'push' AND {ACTIVE}
                ORDER BY event_id LIMIT {NAMED}"""
    return tuple(f"event {event_id} is held: {reason}" for event_id, reason in writer.rows(query, [now]))


def _release_moot(writer: Writer, now: datetime) -> None:
    """Holds by rule whose event is pending again (changed, or retried), excluded, or gone on."""
    writer.rows(
        f"""UPDATE holds SET released_at = ?, released_by = 'push' WHERE {ACTIVE}
            AND cause NOT IN {DECIDED_BY_PEOPLE!r}
            AND event_id IN (SELECT id FROM events WHERE sync_status IN ('pending', 'excluded'))""",
        [now],
    )
    writer.rows(
        f"""UPDATE holds SET released_at = ?, released_by = 'push' WHERE {ACTIVE} AND cause = 'no_customer'
            AND event_id IN (SELECT id FROM events WHERE customer_id IS NOT NULL)""",
        [now],
    )


def _release_settled(writer: Writer, still_held: list[str], now: datetime) -> None:
    """Corrections that were held and are owed no more."""
    gone = f"""SELECT h.event_id FROM holds h JOIN events e ON e.id = h.event_id
               WHERE h.{ACTIVE} AND h.cause NOT IN {DECIDED_BY_PEOPLE!r} AND e.sync_status IN {SENT!r}
               AND h.event_id NOT IN (SELECT unnest(?::VARCHAR[]))"""
    ids = [row[0] for row in writer.rows(gone, [still_held])]
    if ids:
        _release(writer, ids, actor="push", now=now)
        _say(writer, ids, None)


def _keep_back(writer: Writer, holds: Sequence[tuple[str, str, str]], *, actor: str, now: datetime) -> None:
    """Write down (event id, cause in the ledger's word, reason in a sentence)."""
    if not holds:
        return
    ids, causes, reasons = zip(*holds, strict=True)
    rows = {
        "event_id": ids,
        "cause": causes,
        "reason": reasons,
        "actor": [actor] * len(holds),
        "held_at": _times([now] * len(holds)),
    }
    writer.append("holds", pa.table(rows))


def _put_on_hold(writer: Writer, reasons: Mapping[str, str], *, actor: str, now: datetime) -> int:
    """Keep pending events back until somebody releases them; returns how many were not kept back before."""
    if not reasons:
        return 0
    rows = writer.rows(
        f"""SELECT id FROM events WHERE id IN (SELECT unnest(?)) AND sync_status = 'pending'
            AND id NOT IN (SELECT event_id FROM holds WHERE {ACTIVE})""",
        [list(reasons)],
    )
    texts = {row[0]: f"on hold by {actor}: {reasons[row[0]]}" for row in rows}
    _keep_back(writer, [(event_id, "on_hold", text) for event_id, text in texts.items()], actor=actor, now=now)
    said = pa.table(
        {"id": pa.array(list(texts), pa.string()), "sync_error": pa.array(list(texts.values()), pa.string())}
    )
    writer.amend("events", said, key="id")
    return len(texts)


def _withdraw(writer: Writer, identifiers: Sequence[str], *, now: datetime) -> None:
    """Intents that were never tried count for nothing; what they cover is pending again."""
    text = "withdrawn before it was tried: what Stripe counts of its hour is not what was sent from here"
    _settle(writer, [IntentUpdate(identifier, "void", now, text=text) for identifier in identifiers])


def _hold_sent_elsewhere(writer: Writer, found: KeepBack, *, now: datetime) -> int:
    """Keep back usage that Stripe may count already, sent events' corrections too; returns how many are newly held."""
    if found.differences:
        rows = {
            "customer_id": [one.customer_id for one in found.differences],
            "hour": _times([one.hour for one in found.differences]),
            "counted": pa.array([one.counted for one in found.differences], CREDITS),
            "delivered": pa.array([one.delivered for one in found.differences], CREDITS),
            "found_at": _times([now] * len(found.differences)),
        }
        writer.append("sent_elsewhere", pa.table(rows))
    if not found.reasons:
        return 0
    chosen = writer.rows(
        f"""SELECT id, marks FROM events WHERE id IN (SELECT unnest(?)) AND sync_status IN {("pending", *SENT)!r}
            AND id NOT IN (SELECT event_id FROM holds WHERE {ACTIVE} AND cause IN {DECIDED_BY_PEOPLE!r})""",
        [list(found.reasons)],
    )
    ids = [row[0] for row in chosen]
    _release(writer, ids, actor="push", now=now)  # of what a rule kept back, this comes first
    _keep_back(writer, [(id_, SENT_ELSEWHERE, found.reasons[id_]) for id_ in ids], actor="push", now=now)
    said = {
        "id": pa.array(ids, pa.string()),
        "sync_error": pa.array([found.reasons[id_] for id_ in ids], pa.string()),
        "marks": pa.array([with_mark(marks or "", Flag.SENT_ELSEWHERE) for _, marks in chosen], pa.string()),
    }
    writer.amend("events", pa.table(said), key="id")
    return len(ids)


def _leave_out_fractions_sent_elsewhere(writer: Writer, carried: dict[str, Decimal]) -> None:
    """Take off what customers carry the fractions that another ledger had carried into what it sent.

    What it sent beyond the usage that is kept back here, below a credit, is such a fraction: this ledger has it too. So
    is what it took back less than the corrections that are kept back here.
    """
    beyond = f"""
        WITH found AS (
            SELECT customer_id, hour, counted - delivered AS credits, {ACTIVE} AS is_open FROM sent_elsewhere),
        hours AS (
            SELECT customer_id, hour,
                   greatest(coalesce(max(credits) FILTER (is_open AND credits > 0), 0)
                            - coalesce(max(credits) FILTER (NOT is_open AND credits > 0), 0), 0) AS more,
                   least(coalesce(min(credits) FILTER (is_open AND credits < 0), 0)
                         - coalesce(min(credits) FILTER (NOT is_open AND credits < 0), 0), 0) AS less
            FROM found GROUP BY ALL HAVING bool_or(is_open)),
        sums AS (SELECT customer_id, sum(more) AS more, sum(less) AS less FROM hours GROUP BY customer_id),
        covered AS (SELECT c.event_id, c.customer_id, sum(c.credits) AS credits
                    FROM coverage c JOIN intents i USING (identifier) WHERE i.state NOT IN {VOID!r} GROUP BY ALL),
        kept AS (SELECT e.id, e.customer_id, e.credits_total FROM holds h JOIN events e ON e.id = h.event_id
                 WHERE h.{ACTIVE} AND h.cause = '{SENT_ELSEWHERE}'),
        owed AS (SELECT id, customer_id, sum(credits) AS credits FROM (
                     SELECT id, customer_id, credits_total AS credits FROM kept
                     UNION ALL SELECT k.id, c.customer_id, -c.credits FROM covered c JOIN kept k ON k.id = c.event_id)
                 GROUP BY ALL),
        held AS (SELECT customer_id, sum(credits) AS credits, bool_or(credits < 0) AS gives_back FROM owed
                 GROUP BY customer_id),
        beyond AS (SELECT s.customer_id, s.more + CASE WHEN h.gives_back THEN s.less ELSE 0 END
                          - coalesce(h.credits, 0) AS credits
                   FROM sums s LEFT JOIN held h USING (customer_id))
        SELECT customer_id, credits FROM beyond WHERE credits > 0"""
    for customer, credits_ in writer.rows(beyond):
        rest = carried.get(customer, Decimal(0))
        carried[customer] = rest - min(credits_, max(rest, Decimal(0)))


def _say_released(writer: Writer, ids: Sequence[str]) -> None:
    """What is in error by now keeps the reason for that."""
    free = f"""sync_status = 'pending' OR (sync_status IN {SENT!r} AND contains(marks, '{SENT_ELSEWHERE}'))"""
    writer.rows(f"UPDATE events SET sync_error = NULL WHERE ({free}) AND id IN (SELECT unnest(?))", [list(ids)])
    query = f"SELECT id, marks FROM events WHERE contains(marks, '{SENT_ELSEWHERE}') AND id IN (SELECT unnest(?))"
    marked = writer.rows(query, [list(ids)])
    rows = {
        "id": pa.array([row[0] for row in marked], pa.string()),
        "marks": pa.array([without_mark(row[1], Flag.SENT_ELSEWHERE) for row in marked], pa.string()),
    }
    writer.amend("events", pa.table(rows), key="id")


def _decide_sent_elsewhere(writer: Writer, ids: Sequence[str], *, actor: str, now: datetime) -> None:
    """Once nothing of a customer is kept back for it any more, what Stripe counts is known and holds nothing back.

    Usage that moved is kept back for what Stripe counts of its former customers too.
    """
    writer.rows(
        f"""WITH elsewhere AS (SELECT event_id, {ACTIVE} AS is_kept FROM holds WHERE cause = '{SENT_ELSEWHERE}'),
                 payers AS (SELECT id, customer_id FROM events UNION ALL SELECT id, customer_id FROM event_revisions),
                 kept AS (SELECT h.event_id, h.is_kept, p.customer_id
                          FROM elsewhere h JOIN payers p ON p.id = h.event_id WHERE p.customer_id IS NOT NULL)
            UPDATE sent_elsewhere SET released_at = ?, released_by = ? WHERE {ACTIVE}
            AND customer_id IN (SELECT customer_id FROM kept WHERE event_id IN (SELECT unnest(?)))
            AND customer_id NOT IN (SELECT customer_id FROM kept WHERE is_kept)""",
        [now, actor, list(ids)],
    )


def _settle(writer: Writer, answers: Sequence[IntentUpdate]) -> None:
    if not answers:
        return
    writer.amend("intents", _intent_rows(answers), key="identifier")
    if counted := [a for a in answers if a.attempts is not None]:
        rows = {"identifier": [a.identifier for a in counted], "attempts": [a.attempts for a in counted]}
        writer.amend("intents", pa.table(rows), key="identifier")
    for state, of_state in _by_state(answers).items():
        _show_on_events(writer, state, of_state)


def retry_events(writer: Writer, ids: Sequence[str], *, actor: str, now: datetime) -> int:
    """Make events in error pending again, inside a transaction; returns how many were."""
    bound = [list(ids)]
    wanted = """id IN (SELECT unnest(?)) AND sync_status = 'error'
                AND (customer_id IS NOT NULL OR meter_event_identifier IS NOT NULL)"""
    changed = writer.rows(f"SELECT id FROM events WHERE {wanted}", bound)
    writer.rows(f"UPDATE events SET sync_status = 'pending', sync_error = NULL WHERE {wanted}", bound)
    _release(writer, [row[0] for row in changed], actor=actor, now=now)
    return len(changed)


def _release(writer: Writer, ids: Sequence[str], *, actor: str, now: datetime) -> None:
    query = f"UPDATE holds SET released_at = ?, released_by = ? WHERE {ACTIVE} AND event_id IN (SELECT unnest(?))"
    writer.rows(query, [now, actor, list(ids)])


def _say(writer: Writer, ids: Sequence[str], text: str | None) -> None:
    writer.rows("UPDATE events SET sync_error = ? WHERE id IN (SELECT unnest(?))", [text, list(ids)])


def _intent_rows(answers: Sequence[IntentUpdate]) -> pa.Table:
    return pa.table(
        {
            "identifier": pa.array([a.identifier for a in answers], pa.string()),
            "state": pa.array([a.state for a in answers], pa.string()),
            "answered_at": _times([a.at for a in answers]),
            "answer": pa.array([a.text for a in answers], pa.string()),
            "code": pa.array([a.code for a in answers], pa.string()),
            "request_id": pa.array([a.request_id for a in answers], pa.string()),
            "unknown_since": _times([a.unknown_since for a in answers]),
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
        columns["synced_at"] = _times([a.at for a in answers])
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


def _times(times: Sequence[datetime | None]) -> pa.Array:
    return pa.array(times, TIME)


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC)


def _aware(row: dict[str, Any]) -> dict[str, Any]:
    return {name: _utc(value) if isinstance(value, datetime) else value for name, value in row.items()}
