"""Reads from the ledger how far the events of a month got on their way to Stripe: the input of `rules`."""

from __future__ import annotations

from datetime import datetime, timedelta

from billing_core.ledger import pipeline_queries as questions
from billing_core.ledger.engine import Engine
from billing_core.month_close.rules import NAMED, UnfinishedEvents


def unfinished_events(
    engine: Engine, start: datetime, end: datetime, now: datetime, settle: timedelta
) -> list[UnfinishedEvents]:
    """The events that count in `[start, end)`, by stage and cause; corrections of a whole credit or more as a stage."""
    settled = now - settle
    found = []
    for row in engine.read(questions.month_stages(start, end, settled_before=settled)).to_pylist():
        sums = {name: row.pop(name) for name in ("events", "credits", "amount_usd")}
        if row["stage"] not in {"processed", "confirmed", "excluded", "settled"}:
            first = engine.read(questions.month_stage_ids(start, end, settled_before=settled, **row, limit=NAMED))
            found.append(UnfinishedEvents(**row, **sums, event_ids=tuple(first["id"].to_pylist())))
    row = engine.read(questions.month_corrections(start, end, now=now)).to_pylist()[0]
    if row["events"]:
        first = engine.read(questions.month_correction_ids(start, end, now=now, limit=NAMED))
        ids = tuple(first["id"].to_pylist())
        found.append(UnfinishedEvents("correction", None, True, False, **row, event_ids=ids))
    return found
