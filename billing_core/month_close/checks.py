"""How far the events of a month got, read from the ledger: what `close_rules` judges."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import ibis
import ibis.expr.types as ir

from billing_core.ledger.compiled import Bound, ask, bound_number, bound_text, bound_time
from billing_core.ledger.engine import Engine
from billing_core.ledger.schema import events_table
from billing_core.month_close.rules import ELSEWHERE, NAMED, UnfinishedEvents
from billing_core.stripe_sync.pipeline import open_corrections, staged
from billing_core.types import Flag

WHOLE = Decimal(1)
"""Smaller corrections wait as fractions do."""


def standings(
    engine: Engine, start: datetime, end: datetime, now: datetime, settle: timedelta
) -> list[UnfinishedEvents]:
    """Events that count in `[start, end)`, by stage and cause; corrections of a whole credit or more as a stage."""
    within = bound_time(start), bound_time(end)
    month = (*within, bound_time(now - settle))
    found = [
        UnfinishedEvents(
            row["stage"], row["cause"], row["is_settled"], row["is_carried"], row["events"], row["credits"],
            tuple(_first(engine, month, row)),
        )
        for row in engine.read(ask(_grouped, *month)).to_pylist()
        if row["stage"] not in {"processed", "confirmed", "excluded"}
    ]  # fmt: skip
    row = engine.read(ask(_owed_sum, *within, bound_time(now))).to_pylist()[0]
    if row["events"]:
        ids = engine.read(ask(_owed_ids, *within, bound_time(now), bound_number(NAMED)))["id"].to_pylist()
        found.append(UnfinishedEvents("correction", None, True, False, row["events"], row["credits"], tuple(ids)))
    return found


def _counts_in(t: ir.Table, start: Bound, end: Bound) -> tuple[ir.BooleanValue, ir.BooleanValue]:
    moment = ibis.coalesce(t.accounted_at, t.timestamp)
    return moment >= start.scalar, moment < end.scalar


def _kinds(start: Bound, end: Bound, settled_before: Bound) -> ir.Table:
    """Events with credits that count in the month, with what they are grouped by."""
    t = staged()
    t = t.filter(*_counts_in(t, start, end), t.credits_total != 0)
    return t.mutate(
        cause=ibis.ifelse((t.stage == "sending") & t.billed_elsewhere.fill_null(False), ELSEWHERE, t.cause),
        is_settled=t.ended_at <= settled_before.scalar,
        is_carried=t.marks.fill_null("").contains(Flag.CARRIED),
    )


def _grouped(start: Bound, end: Bound, settled_before: Bound) -> ir.Table:
    t = _kinds(start, end, settled_before)
    return t.group_by("stage", "cause", "is_settled", "is_carried").aggregate(
        events=t.count(), credits=t.credits_total.sum()
    )


def _first(engine: Engine, month: tuple[Bound, Bound, Bound], row: Mapping[str, Any]) -> list[str]:
    """The first ids of a group."""
    cause = None if row["cause"] is None else bound_text(row["cause"])
    is_settled: bool | None = row["is_settled"]
    is_carried: bool = row["is_carried"]
    question = ask(_ids, *month, bound_text(row["stage"]), cause, is_settled, is_carried, bound_number(NAMED))
    found: list[str] = engine.read(question)["id"].to_pylist()
    return found


def _ids(
    start: Bound, end: Bound, settled_before: Bound,
    stage: Bound, cause: Bound | None, is_settled: bool | None, is_carried: bool, most: Bound,
) -> ir.Table:  # fmt: skip
    t = _kinds(start, end, settled_before)
    same = (
        t.stage == stage.scalar, t.cause.isnull() if cause is None else t.cause == cause.scalar,
        t.is_settled.identical_to(is_settled), t.is_carried == is_carried,
    )  # fmt: skip
    return t.filter(*same).select("id").order_by("id").limit(most.rows)


def _owed(start: Bound, end: Bound, now: Bound) -> ir.Table:
    """Corrections of a whole credit or more of events that count in the month."""
    e = events_table()
    mine = e.filter(*_counts_in(e, start, end)).select(own="id")
    o = open_corrections(now)
    return o.semi_join(mine, o.id == mine.own).filter(lambda t: t.owed.abs() >= WHOLE)


def _owed_sum(start: Bound, end: Bound, now: Bound) -> ir.Table:
    owed = _owed(start, end, now)
    return owed.aggregate(events=owed.count(), credits=owed.owed.abs().sum())


def _owed_ids(start: Bound, end: Bound, now: Bound, most: Bound) -> ir.Table:
    return _owed(start, end, now).select("id").order_by("id").limit(most.rows)
