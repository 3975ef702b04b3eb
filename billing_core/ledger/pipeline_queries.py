"""Questions about how far events got on their way to Stripe, what is stuck, and what sent events owe since.

Every event stands in exactly one stage, so the stages add up to the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import ibis
import ibis.expr.types as ir

from billing_core.ledger.compiled import (
    Bound,
    Listed,
    Question,
    among,
    ask,
    bound_list,
    bound_number,
    bound_text,
    bound_time,
)
from billing_core.ledger.holds import DECIDED_BY_PEOPLE, ON_HOLD
from billing_core.ledger.queries import amount
from billing_core.ledger.schema import events_table
from billing_core.ledger.sent_elsewhere import WHOLE
from billing_core.ledger.stages import corrections_on_hold, open_corrections, staged
from billing_core.ledger.sync_queries import carried
from billing_core.types import Flag, SyncStatus


def _staged() -> ir.Table:
    t = staged()
    return t.mutate(amount_usd=amount(t))


def stages(accepted_from: datetime) -> Question:
    """A question: events, credits, US dollars and the first start (`oldest`) per stage; `oldest_accepted` is the first
    start at or after `accepted_from`.
    """
    return ask(_stages, bound_time(accepted_from))


def _stages(accepted_from: Bound) -> ir.Table:
    t = _staged()
    return t.group_by("stage").aggregate(
        events=t.count(),
        credits=t.credits_total.sum(),
        amount_usd=t.amount_usd.sum(),
        oldest=t.timestamp.min(),
        oldest_accepted=t.timestamp.min(where=t.timestamp >= accepted_from.scalar),
    )


def fractions() -> Question:
    """A question: the fractions of a credit carried forward per customer, where they are not 0."""
    return ask(_fractions)


def _fractions() -> ir.Table:
    c = carried()
    return c.filter(c.carried != 0).order_by("customer_id")


def _priced(owed: ir.Table) -> ir.Table:
    """Corrections with the difference in US dollars as `owed_usd`."""
    facts = events_table().select(priced="id", price="credit_price_usd", sync_error="sync_error")
    t = owed.join(facts, owed.id == facts.priced)
    return t.mutate(owed_usd=t.owed * t.price)


def corrections(now: datetime) -> Question:
    """A question: what sent events owe beyond their intents: events, credits and US dollars in one row."""
    return ask(_corrections, bound_time(now))


def _corrections(now: Bound) -> ir.Table:
    o = _priced(open_corrections(now))
    return o.aggregate(events=o.count(), credits=o.owed.sum(), amount_usd=o.owed_usd.sum())


def held_corrections(now: datetime) -> Question:
    """A question: the corrections that are held, per cause, with an `example` of the reason."""
    return ask(_held_corrections, bound_time(now))


def _held_corrections(now: Bound) -> ir.Table:
    held = _priced(corrections_on_hold(now))
    return held.group_by("cause").aggregate(
        events=held.count(),
        credits=held.owed.sum(),
        amount_usd=held.owed_usd.sum(),
        customers=held.customer_id.nunique(),
        example=held.sync_error.max(),
    )


def stuck(accepted_from: datetime) -> Question:
    """A question: events in error or held per cause and customer, most credits first, with an `example` of the reason.

    `oldest` is the start of the first event at or after `accepted_from`: the one that Stripe refuses as too old next.
    """
    return ask(_stuck, bound_time(accepted_from))


def _stuck(accepted_from: Bound) -> ir.Table:
    t = _staged()
    stuck = t.filter(t.stage.isin(["error", "held"]))
    grouped = stuck.group_by("cause", "customer_id").aggregate(
        events=stuck.count(),
        credits=stuck.credits_total.sum(),
        amount_usd=stuck.amount_usd.sum(),
        oldest=stuck.timestamp.min(where=stuck.timestamp >= accepted_from.scalar),
        example=stuck.sync_error.max(),
    )
    return grouped.order_by(ibis.desc("credits"), "cause", "customer_id")


def decidable(action: str, *, cause: str | None, customer_ids: Sequence[str], event_ids: Sequence[str]) -> Question:
    """A question: events that can be retried, held or released (`action`), narrowed by cause, customers and ids."""
    named = None if cause is None else bound_text(cause)
    customers = bound_list(customer_ids) if customer_ids else None
    return ask(_decidable, str(action), named, customers, bound_list(event_ids) if event_ids else None)


def _decidable(action: str, cause: Bound | None, customers: Listed | None, events: Listed | None) -> ir.Table:
    t = _staged()
    match action:
        case "retry":
            wanted = t.stage.isin(["error", "held"]) & (t.sync_status == SyncStatus.ERROR)
            wanted &= t.customer_id.notnull() | t.meter_event_identifier.notnull()
        case "hold":
            wanted = t.stage == "pending"
        case "release":
            wanted = t.hold.isin(DECIDED_BY_PEOPLE)
        case _:
            raise ValueError(f"action {action!r}: retry, hold or release")
    t = t.filter(wanted)
    if cause is not None:
        t = t.filter((t.cause == cause.scalar) | ((t.hold == cause.scalar) & t.cause.isnull()))
    if customers is not None:
        t = t.filter(among(t.customer_id, customers))
    if events is not None:
        t = t.filter(among(t.id, events))
    return t.select("id", "credits_total", "amount_usd").order_by("id")


def prices(event_ids: Iterable[str]) -> Question:
    """A question: the credit price of some events."""
    return ask(_prices, bound_list(event_ids))


def _prices(events: Listed) -> ir.Table:
    t = events_table()
    return t.filter(among(t.id, events)).select("id", "credit_price_usd")


def unsent(began_before: datetime, *, only_pending: bool = False) -> Question:
    """A question: events that began before a moment and whose credits Stripe does not have, in one row with the first
    start (`oldest`): pending (all that `only_pending` leaves), sending, in error or held.

    Less than a whole credit that is carried on is not unsent, nor is what a person put on hold.
    """
    return ask(_unsent, bound_time(began_before), only_pending)


def _unsent(began_before: Bound, only_pending: bool) -> ir.Table:
    t = _staged()
    stages = ["pending"] if only_pending else ["pending", "sending", "error", "held"]
    is_left = (t.cause.fill_null("") == ON_HOLD) | t.marks.fill_null("").contains(Flag.CARRIED)
    t = t.filter(
        t.stage.isin(stages),
        t.credits_total != 0,
        t.timestamp < began_before.scalar,
        ~is_left,
        ~t.billed_elsewhere.fill_null(False),
    )
    return t.aggregate(events=t.count(), credits=t.credits_total.sum(), oldest=t.timestamp.min())


# ── what a month still waits for ─────────────────────────────────────────────────────────────────


def month_stages(start: datetime, end: datetime, *, settled_before: datetime) -> Question:
    """A question: events, credits and US dollars that count in `[start, end)`, per stage, cause, whether settled, and
    whether carried.

    Cause `elsewhere`: an import brought them as sent, and what became of them is not known.
    """
    return ask(_month_stages, bound_time(start), bound_time(end), bound_time(settled_before))


def _counts_in(t: ir.Table, start: Bound, end: Bound) -> tuple[ir.BooleanValue, ir.BooleanValue]:
    moment = ibis.coalesce(t.accounted_at, t.timestamp)
    return moment >= start.scalar, moment < end.scalar


def _in_month(start: Bound, end: Bound, settled_before: Bound) -> ir.Table:
    """Events with credits that count in the month, with what they are grouped by."""
    t = _staged()
    t = t.filter(*_counts_in(t, start, end), t.credits_total != 0)
    return t.mutate(
        cause=ibis.ifelse((t.stage == "sending") & t.billed_elsewhere.fill_null(False), "elsewhere", t.cause),
        is_settled=t.ended_at <= settled_before.scalar,
        is_carried=t.marks.fill_null("").contains(Flag.CARRIED),
    )


def _month_stages(start: Bound, end: Bound, settled_before: Bound) -> ir.Table:
    t = _in_month(start, end, settled_before)
    return t.group_by("stage", "cause", "is_settled", "is_carried").aggregate(
        events=t.count(), credits=t.credits_total.sum(), amount_usd=t.amount_usd.sum()
    )


def month_stage_ids(
    start: datetime,
    end: datetime,
    *,
    settled_before: datetime,
    stage: str,
    cause: str | None,
    is_settled: bool | None,
    is_carried: bool,
    limit: int,
) -> Question:
    """A question: the first event ids of one row of `month_stages`."""
    return ask(
        _month_stage_ids,
        bound_time(start),
        bound_time(end),
        bound_time(settled_before),
        bound_text(stage),
        None if cause is None else bound_text(cause),
        is_settled,
        is_carried,
        bound_number(limit),
    )


def _month_stage_ids(
    start: Bound,
    end: Bound,
    settled_before: Bound,
    stage: Bound,
    cause: Bound | None,
    is_settled: bool | None,
    is_carried: bool,
    limit: Bound,
) -> ir.Table:
    t = _in_month(start, end, settled_before)
    same = (
        t.stage == stage.scalar,
        t.cause.isnull() if cause is None else t.cause == cause.scalar,
        t.is_settled.identical_to(is_settled),
        t.is_carried == is_carried,
    )
    return t.filter(*same).select("id").order_by("id").limit(limit.rows)


def _month_owed(start: Bound, end: Bound, now: Bound) -> ir.Table:
    """Corrections of a whole credit or more of events that count in the month."""
    e = events_table()
    mine = e.filter(*_counts_in(e, start, end)).select(own="id")
    o = _priced(open_corrections(now))
    return o.semi_join(mine, o.id == mine.own).filter(lambda t: t.owed.abs() >= WHOLE)


def month_corrections(start: datetime, end: datetime, *, now: datetime) -> Question:
    """A question: corrections by a credit or more of events in `[start, end)`: events, credits and US dollars either
    way.
    """
    return ask(_month_corrections, bound_time(start), bound_time(end), bound_time(now))


def _month_corrections(start: Bound, end: Bound, now: Bound) -> ir.Table:
    owed = _month_owed(start, end, now)
    return owed.aggregate(
        events=owed.count(),
        credits=owed.owed.abs().sum().fill_null(0),
        amount_usd=owed.owed_usd.abs().sum().fill_null(0),
    )


def month_correction_ids(start: datetime, end: datetime, *, now: datetime, limit: int) -> Question:
    """A question: the first event ids of `month_corrections`."""
    return ask(_month_correction_ids, bound_time(start), bound_time(end), bound_time(now), bound_number(limit))


def _month_correction_ids(start: Bound, end: Bound, now: Bound, limit: Bound) -> ir.Table:
    return _month_owed(start, end, now).select("id").order_by("id").limit(limit.rows)
