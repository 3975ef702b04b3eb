"""What the ledger knows of events that imports brought: those nobody decided about yet, and what is billed when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import ibis
import ibis.expr.types as ir

from billing_core.ledger.engine import Engine
from billing_core.ledger.queries import instant
from billing_core.ledger.schema import (
    IMPORT_RUN,
    UNDO_RUN,
    coverage_table,
    events_table,
    holds_table,
    intents_table,
    revisions_table,
)
from billing_core.ledger.sync import DELIVERED, ELSEWHERE, candidates, valid_coverage
from billing_core.types import Flag, SyncStatus
from billing_core.usage import Window

__all__ = ["WHOLE", "Brought", "billed_by_hour", "brought_unsent", "untried_intents"]

WHOLE = Decimal(1)
"""Less than a credit is a fraction: it waits, and is carried from hour to hour."""

CREDITS = "decimal(38, 6)"


@dataclass(frozen=True, slots=True)
class Brought:
    """An unsent event that an import brought: its id, its exact credits and its start, aware UTC: the earlier one of
    the file's and what is known since, because it is where another ledger may have sent it."""

    event_id: str
    credits: Decimal
    timestamp: datetime


def brought_unsent(engine: Engine, settled_before: datetime) -> dict[str, list[Brought]]:
    """Customer → unsent events that imports brought and that the next push would send; a whole credit or more."""
    if not _has_imports(engine):
        return {}
    found: dict[str, list[Brought]] = {}
    for row in engine.read(_brought(settled_before)).to_pylist():
        event = Brought(row["id"], row["credits_total"], row["began"].replace(tzinfo=UTC))
        found.setdefault(row["customer_id"], []).append(event)
    return {customer: events for customer, events in found.items() if sum(e.credits for e in events) >= WHOLE}


def untried_intents(engine: Engine) -> list[str]:
    """Meter events that cover imported usage, were written down by an earlier push and never tried: by now another
    ledger may have sent what they carry."""
    if not _has_imports(engine):
        return []
    i, t = intents_table(), _told()
    mine = coverage_table().semi_join(t, coverage_table().event_id == t.id)
    untried = i.filter(i.state == "open", i.unknown_since.isnull()).semi_join(mine, "identifier")
    found: list[str] = engine.read(untried.select("identifier").order_by("identifier"))["identifier"].to_pylist()
    return found


def billed_by_hour(engine: Engine, customer_id: str, window: Window) -> dict[datetime, Decimal]:
    """UTC hour → credits that a customer was billed for usage of it: delivered from here, billed by what an import came
    from (as its file said), or by the earlier system, which rounded every event up."""
    i, t, e = intents_table(), _told(), events_table()
    parts = (
        i.filter(i.state.isin(DELIVERED)).select("customer_id", moment="stamp", credits=i.value.cast(CREDITS)),
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


def _brought(settled_before: datetime) -> ir.Table:
    """Of what a push would look at the pending events that a file told of, and that are on no meter event that counts.

    Whoever put an event on hold or released it has decided; that somebody undid an import decides nothing.
    """
    c, h, covered = candidates(settled_before), holds_table(), valid_coverage()
    t = _told().select(told="id", told_at="timestamp")
    c = c.filter(c.sync_status == SyncStatus.PENDING, c.credits_total != 0, c.customer_id.notnull())
    by_an_import = h.released_by.startswith(UNDO_RUN) | h.released_by.startswith(IMPORT_RUN)
    decided = h.filter(h.cause == "on_hold", ~by_an_import.fill_null(False))
    mine = c.inner_join(t, c.id == t.told)
    mine = mine.anti_join(covered, mine.id == covered.event_id)
    mine = mine.anti_join(decided, mine.id == decided.event_id)
    began = ibis.least(mine.timestamp, mine.told_at)
    return mine.select("id", "customer_id", "credits_total", began=began).order_by("customer_id", "began", "id")


def _told() -> ir.Table:
    """Events as a file told of them, whatever was read of them since."""
    names = ("id", "customer_id", "timestamp", "credits_total", "sync_status", ELSEWHERE, "revision")
    states = ibis.union(
        *(t.filter(t.run_id.startswith(IMPORT_RUN)).select(*names) for t in (events_table(), revisions_table())),
        distinct=False,
    )
    place = ibis.row_number().over(group_by=states.id, order_by=states.revision.desc())
    return states.mutate(place=place).filter(ibis._.place == 0).drop("place")


def _has_imports(engine: Engine) -> bool:
    return bool(engine.rows("SELECT 1 FROM imports LIMIT 1"))
