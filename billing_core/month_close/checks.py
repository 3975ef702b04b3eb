"""How far the events of a month got, read from the ledger: what `close_rules` judges."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import ibis
import ibis.expr.types as ir

from billing_core.ledger.engine import Engine
from billing_core.ledger.queries import instant
from billing_core.ledger.schema import events_table
from billing_core.month_close.rules import ELSEWHERE, NAMED, UnfinishedEvents
from billing_core.stripe_sync.pipeline import open_corrections, staged
from billing_core.types import Flag

__all__ = ["standings"]

WHOLE = Decimal(1)
"""Smaller corrections wait as fractions do."""


def standings(
    engine: Engine, start: datetime, end: datetime, now: datetime, settle: timedelta
) -> list[UnfinishedEvents]:
    """Events that count in `[start, end)`, by stage and cause; corrections of a whole credit or more as a stage."""
    t = staged()
    t = t.filter(*_counts_in(t, start, end), t.credits_total != 0)
    t = t.mutate(
        cause=ibis.ifelse((t.stage == "sending") & t.billed_elsewhere.fill_null(False), ELSEWHERE, t.cause),
        is_settled=t.ended_at <= instant(now - settle),
        is_carried=t.marks.fill_null("").contains(Flag.CARRIED),
    )
    grouped = t.group_by("stage", "cause", "is_settled", "is_carried").aggregate(
        events=t.count(), credits=t.credits_total.sum()
    )
    found = [
        UnfinishedEvents(
            row["stage"], row["cause"], row["is_settled"], row["is_carried"], row["events"], row["credits"],
            tuple(_first(engine, t, row)),
        )
        for row in engine.read(grouped).to_pylist()
        if row["stage"] not in {"processed", "confirmed", "excluded"}
    ]  # fmt: skip
    e = events_table()
    mine = e.filter(*_counts_in(e, start, end)).select(own="id")
    o = open_corrections(now.astimezone(UTC))
    owed = o.semi_join(mine, o.id == mine.own).filter(lambda t: t.owed.abs() >= WHOLE)
    row = engine.read(owed.aggregate(events=owed.count(), credits=owed.owed.abs().sum())).to_pylist()[0]
    if row["events"]:
        ids = engine.read(owed.select("id").order_by("id").limit(NAMED))["id"].to_pylist()
        found.append(UnfinishedEvents("correction", None, True, False, row["events"], row["credits"], tuple(ids)))
    return found


def _counts_in(t: ir.Table, start: datetime, end: datetime) -> tuple[ir.BooleanValue, ir.BooleanValue]:
    moment = ibis.coalesce(t.accounted_at, t.timestamp)
    return moment >= instant(start), moment < instant(end)


def _first(engine: Engine, t: ir.Table, row: Mapping[str, Any]) -> list[str]:
    """The first ids of a group."""
    same = [t[name].identical_to(row[name]) for name in ("stage", "cause", "is_settled", "is_carried")]
    found: list[str] = engine.read(t.filter(*same).select("id").order_by("id").limit(NAMED))["id"].to_pylist()
    return found
