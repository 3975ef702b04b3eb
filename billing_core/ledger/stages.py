"""The stage of each event on its way to Stripe and, where it is stuck, the cause: one definition for every question."""

from __future__ import annotations

from decimal import Decimal

import ibis
import ibis.expr.types as ir

from billing_core.ledger.compiled import Bound, Listed, among
from billing_core.ledger.holds import SENT_ELSEWHERE
from billing_core.ledger.schema import SENT, events_table, holds_table, intents_table
from billing_core.ledger.sync_queries import candidate_events, covered, taken_off
from billing_core.types import Flag, SyncStatus

CORRECTION_HELD = "correction_held"
"""Cause of a difference that may not be sent: its event was sent once, so it stands in no stuck stage."""


def staged() -> ir.Table:
    """Every event with its `stage` and, if it is stuck, the `cause`."""
    e, h, i = events_table(), holds_table(), intents_table()
    holds = h.filter(h.released_at.isnull()).group_by("event_id").aggregate(hold=h.cause.max(), why=h.reason.max())
    rejected = i.filter(i.state == "rejected").select(rejected="identifier", code="code")
    t = e.left_join(holds, e.id == holds.event_id).left_join(rejected, e.meter_event_identifier == rejected.rejected)
    is_held = t.hold.notnull() & ~t.sync_status.isin(SENT)
    # What an earlier system billed was never accepted from here: a stage of its own.
    is_before = t.flags.contains(Flag.LEGACY_BILLED) & t.sync_status.isin(SENT)
    # Of what a meter event carries some may be settled too: that stands where the meter event does.
    is_over = t.sync_status.isin(["excluded", *DONE]) & t.meter_event_identifier.isnull()
    is_settled = is_over & (_has(t, Flag.WRITTEN_OFF) | _has(t, Flag.INVOICED_SEPARATELY))
    stage = ibis.cases(
        (is_held, ibis.literal("held")),
        (is_before, ibis.literal("billed_before")),
        (is_settled, ibis.literal("settled")),
        else_=t.sync_status.cast("string"),
    )
    # What no intent ever covered was not rejected: the next push writes it down as held.
    is_error = stage == "error"
    unsendable = is_error & t.meter_event_identifier.isnull()
    cause = ibis.cases(
        (is_held, t.hold),
        (unsendable & t.flags.contains(Flag.NO_CUSTOMER), "no_customer"),
        (unsendable, "failed_before"),
        (is_error, t.code.fill_null("rejected")),
        else_=ibis.null("string"),
    )
    return t.mutate(stage=stage, cause=cause)


DONE = ("processed", "confirmed")


def _has(events: ir.Table, mark: Flag) -> ir.BooleanValue:
    return events.marks.fill_null("").contains(mark)


def held_ids() -> ir.Column:
    """The ids of the events in the stage `held`."""
    t = staged()
    return t.filter(t.stage == "held").id


def ids_in_stages(stages: Listed) -> ir.Column:
    """The ids of the events in one of some stages."""
    t = staged()
    return t.filter(among(t.stage, stages)).id


def ids_by_cause(causes: Listed) -> ir.Column:
    """The ids of events that are stuck for one of some causes, of sent ones with a correction held for it, and of those
    settled as it says.
    """
    t = staged()
    stuck = t.filter(t.stage.isin(["error", "held"])).select("id", "cause")
    late, e = corrections_on_hold().select("id", "cause"), events_table()
    settled = (
        e.filter(_has(e, flag)).select("id", cause=ibis.literal(flag.value))
        for flag in (Flag.WRITTEN_OFF, Flag.INVOICED_SEPARATELY)
    )
    every = ibis.union(stuck, late, *settled, distinct=False)
    return every.filter(among(every.cause, causes)).id


def open_corrections(settled_before: Bound | None = None) -> ir.Table:
    """Sent events whose intents do not add up to their credits any more, with the difference as `owed`."""
    e = candidate_events(settled_before, on_hold_too=True)
    changed = e.filter(e.sync_status != SyncStatus.PENDING)
    sums = covered(changed).group_by("event_id")
    sums = sums.aggregate(covered=lambda t: t.credits.sum(), lifted=lambda t: t.written_off.sum())
    t = changed.left_join(sums, changed.id == sums.event_id)
    owed = t.mutate(owed=t.credits_total - t.covered.fill_null(Decimal(0)))
    owed = owed.mutate(owed=owed.owed - taken_off(owed.owed, owed.lifted.fill_null(Decimal(0))))
    return owed.filter(owed.owed != 0)


def corrections_on_hold(settled_before: Bound | None = None) -> ir.Table:
    """Those of `open_corrections` that are on hold, with the `cause`."""
    o, h = open_corrections(settled_before), holds_table()
    holds = h.filter(h.released_at.isnull()).select(held="event_id", hold="cause")
    t = o.join(holds, o.id == holds.held)
    return t.mutate(cause=ibis.ifelse(t.hold == SENT_ELSEWHERE, SENT_ELSEWHERE, CORRECTION_HELD))
