"""The stage of each event on its way to Stripe and, where it is stuck, the cause: one definition for every question."""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from billing_core.ledger.compiled import Listed, among
from billing_core.ledger.holds import SENT_ELSEWHERE
from billing_core.ledger.schema import SENT, events_table, holds_table, intents_table
from billing_core.types import Flag

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
    stage = ibis.cases(
        (is_held, ibis.literal("held")), (is_before, ibis.literal("billed_before")), else_=t.sync_status.cast("string")
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


def held_ids() -> ir.Column:
    """The ids of the events in the stage `held`."""
    t = staged()
    return t.filter(t.stage == "held").id


def ids_by_cause(causes: Listed) -> ir.Column:
    """The ids of events that are stuck for one of some causes, and of sent ones with a correction held for it."""
    t = staged()
    stuck = t.filter(t.stage.isin(["error", "held"])).select("id", "cause")
    late = t.filter(t.hold.notnull(), t.sync_status.isin(SENT))
    late = late.select("id", cause=ibis.ifelse(late.hold == SENT_ELSEWHERE, SENT_ELSEWHERE, CORRECTION_HELD))
    both = stuck.union(late, distinct=False)
    return both.filter(among(both.cause, causes)).id
