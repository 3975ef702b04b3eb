"""What the ledger knows about usage that somebody else may have sent: what was delivered from here hour by hour, what
earlier looks at Stripe's sums found, what people decided, and where imported usage was when its file was written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from billing_core.ledger.engine import Engine
from billing_core.ledger.queries import instant
from billing_core.ledger.schema import (
    IMPORT_RUN,
    UNDO_RUN,
    coverage_table,
    events_table,
    intents_table,
    revisions_table,
    sent_elsewhere_table,
)
from billing_core.ledger.sync import DELIVERED, DUPLICATE, ELSEWHERE, SENT_ELSEWHERE, Excess
from billing_core.types import Flag, SyncStatus
from billing_core.usage import Window, hour_of

__all__ = [
    "WHOLE",
    "Found",
    "Untried",
    "billed_by_hour",
    "conflicting_hours",
    "decided_events",
    "found_before",
    "sent_into_since",
    "told_times",
    "untried_intents",
]

WHOLE = Decimal(1)
"""Less than a credit is a fraction: it waits, and is carried from hour to hour."""

CREDITS = "decimal(38, 6)"


@dataclass(frozen=True, slots=True)
class Found:
    """An hour in which Stripe counted more than was sent from here: since when that is known, and whether somebody has
    decided that it holds nothing back."""

    excess: Excess
    found_at: datetime
    is_decided: bool


@dataclass(frozen=True, slots=True)
class Untried:
    """A meter event that was written down and never tried; `value` in whole credits."""

    identifier: str
    customer_id: str
    hour: datetime
    value: int
    event_ids: tuple[str, ...]


def untried_intents(engine: Engine) -> list[Untried]:
    """Meter events an earlier push wrote down and never tried: by now somebody else may have sent what they carry."""
    i, c = intents_table(), coverage_table()
    told_of = ("identifier", "customer_id", "stamp", "value")
    waiting = i.filter(i.state == "open", i.unknown_since.isnull()).select(*told_of)
    mine = waiting.join(c.select("identifier", "event_id"), "identifier")
    grouped = mine.group_by(*told_of).aggregate(events=mine.event_id.collect())
    return [
        Untried(
            row["identifier"], row["customer_id"], hour_of(row["stamp"].replace(tzinfo=UTC)), row["value"],
            tuple(row["events"]),
        )
        for row in engine.read(grouped.order_by("identifier")).to_pylist()
    ]  # fmt: skip


def sent_into_since(engine: Engine, since: datetime) -> set[tuple[str, datetime]]:
    """(customer, UTC hour) that this ledger sent into since a time: whoever sends the same again is recognised.

    A meter event that Stripe had before does not count: it was sent at an earlier time that nobody here knows.
    """
    rows = engine.rows(
        f"""SELECT DISTINCT customer_id, date_trunc('hour', stamp) FROM intents WHERE code IS DISTINCT FROM ? AND (
                (state IN {DELIVERED!r} AND answered_at >= ?) OR (state = 'sending' AND unknown_since >= ?))""",
        [DUPLICATE, since, since],
    )
    return {(customer, hour.replace(tzinfo=UTC)) for customer, hour in rows}


def conflicting_hours(engine: Engine, state: str, code: str) -> dict[tuple[str, datetime], datetime]:
    """(customer, UTC hour) in which Stripe has other bytes under an identifier of ours → when it last said so."""
    rows = engine.rows(
        """SELECT customer_id, date_trunc('hour', stamp), max(answered_at) FROM intents
           WHERE state = ? AND code = ? GROUP BY ALL""",
        [state, code],
    )
    return {(customer, hour.replace(tzinfo=UTC)): at.replace(tzinfo=UTC) for customer, hour, at in rows}


def found_before(engine: Engine) -> list[Found]:
    """What earlier looks found, oldest first."""
    t = sent_elsewhere_table()
    return [
        Found(
            Excess(row["customer_id"], row["hour"].replace(tzinfo=UTC), row["counted"], row["delivered"]),
            row["found_at"].replace(tzinfo=UTC),
            row["released_at"] is not None,
        )
        for row in engine.read(t.order_by("found_at", "customer_id", "hour")).to_pylist()
    ]


def decided_events(engine: Engine) -> dict[str, datetime]:
    """Events that somebody released although Stripe counts more → when. That an import was undone decides nothing."""
    rows = engine.rows(
        f"""SELECT event_id, max(released_at) FROM holds WHERE cause = ? AND released_at IS NOT NULL
            AND NOT starts_with(released_by, '{UNDO_RUN}') AND NOT starts_with(released_by, '{IMPORT_RUN}')
            AND released_by <> 'push' GROUP BY event_id""",
        [SENT_ELSEWHERE],
    )
    return {event_id: at.replace(tzinfo=UTC) for event_id, at in rows}


def billed_by_hour(engine: Engine, customer_id: str, window: Window, *, recent: datetime) -> dict[datetime, Decimal]:
    """UTC hour → credits of a customer that Stripe may count for usage that is known here: delivered from here, billed
    by what an import came from (as its file said), or by the earlier system, which rounded every event up.

    What was tried without an answer may have arrived. What was given back since `recent` may not be in a sum yet.
    """
    i, t, e = intents_table(), told(), events_table()
    may_lag = (i.state == "accepted") & (i.answered_at >= instant(recent))
    delivered = i.state.isin(DELIVERED) & ~((i.value < 0) & may_lag)
    tried = (i.state == "sending") & i.unknown_since.notnull() & (i.value > 0)
    parts = (
        i.filter(delivered | tried).select("customer_id", moment="stamp", credits=i.value.cast(CREDITS)),
        t.filter(t[ELSEWHERE], t.sync_status.isin([SyncStatus.PROCESSED, SyncStatus.CONFIRMED])).select(
            "customer_id", moment="timestamp", credits=t.credits_total.cast(CREDITS)
        ),
        e.filter(e.flags.contains(Flag.LEGACY_BILLED), ~e[ELSEWHERE].fill_null(False)).select(
            "customer_id", moment="timestamp", credits=e.credits_total.ceil().cast(CREDITS)
        ),
    )
    billed = ibis.union(*parts, distinct=False)
    inside = billed.filter(
        billed.customer_id == customer_id, billed.moment >= instant(window.start), billed.moment < instant(window.end)
    )
    hours = inside.group_by(hour=inside.moment.truncate("h")).aggregate(credits=inside.credits.sum())
    return {row["hour"].replace(tzinfo=UTC): row["credits"] for row in engine.read(hours).to_pylist()}


def told_times(engine: Engine) -> pa.Table | None:
    """Pending events that an import brought, with when they began as the file told it (`told_at`): there another ledger
    may have sent them. `None` without imports."""
    if not engine.rows("SELECT 1 FROM imports LIMIT 1"):
        return None
    t, e = told(), events_table()
    pending = e.filter(e.sync_status == SyncStatus.PENDING).select(pending="id")
    return engine.read(t.semi_join(pending, t.id == pending.pending).select("id", told_at="timestamp"))


def told() -> ir.Table:
    """Events as a file told of them, whatever was read of them since."""
    names = ("id", "customer_id", "timestamp", "credits_total", "sync_status", ELSEWHERE, "revision")
    states = ibis.union(
        *(t.filter(t.run_id.startswith(IMPORT_RUN)).select(*names) for t in (events_table(), revisions_table())),
        distinct=False,
    )
    place = ibis.row_number().over(group_by=states.id, order_by=states.revision.desc())
    return states.mutate(place=place).filter(ibis._.place == 0).drop("place")
