"""Questions a push asks the ledger: which events may owe credits, what intents cover already, what is on its way."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import ibis
import ibis.expr.types as ir

from billing_core.ledger.compiled import Bound, Question, ask, bound_text, bound_time
from billing_core.ledger.holds import DECIDED_BY_PEOPLE
from billing_core.ledger.schema import (
    IN_DOUBT,
    INVOICE_ITEM,
    LIVE,
    OPEN,
    SENT,
    VOID,
    WRITE_OFF,
    coverage_table,
    events_table,
    holds_table,
    intents_table,
    settlement_parts_table,
    settlements_table,
)
from billing_core.types import Flag


def candidates(settled_before: datetime) -> Question:
    """A question: events that may owe credits or be owed some: settled, not held, pending or changed."""
    return ask(_candidates, bound_time(settled_before))


def _candidates(settled_before: Bound) -> ir.Table:
    return candidate_events(settled_before)


def a_candidate(settled_before: datetime) -> Question:
    """A question: one of the `candidates`, if there is any."""
    return ask(_a_candidate, bound_time(settled_before))


def _a_candidate(settled_before: Bound) -> ir.Table:
    return candidate_events(settled_before).limit(1)


def candidate_events(settled_before: Bound | None, *, on_hold_too: bool = False) -> ir.Table:
    """The Ibis expression of `candidates`, settled or not without a time, with events on hold if wanted."""
    e, h = events_table(), holds_table()
    is_known = e.meter_event_identifier.notnull() | e.marks.contains(Flag.INVOICED_SEPARATELY)
    changed = e.sync_status.isin(SENT) & e.marks.contains(Flag.CHANGED_AFTER_SENDING) & is_known
    wanted = e.filter(
        (e.sync_status == "pending") | changed | e.id.isin(_owed_back().id),
        ~e.flags.contains(Flag.LEGACY_BILLED),
        ~e.billed_elsewhere.fill_null(False),
    )
    if settled_before is not None:
        wanted = wanted.filter(wanted.ended_at <= settled_before.scalar)
    on_hold = h.filter(h.released_at.isnull(), h.cause.isin(DECIDED_BY_PEOPLE))
    doubtful = in_doubt()
    wanted = wanted.anti_join(doubtful, wanted.id == doubtful.event_id)
    if not on_hold_too:
        wanted = wanted.anti_join(on_hold, wanted.id == on_hold.event_id)
    return wanted.select("id", "customer_id", "timestamp", "credits_total", "sync_status", "marks")


def in_doubt() -> ir.Table:
    """Events with an intent, or invoice item, that may or may not have arrived: they are not corrected before its
    outcome is known.
    """
    i, x, s = intents_table(), settlement_parts_table(), settlements_table()
    tried = i.filter(i.state == "sending", i.unknown_since.notnull())
    sent = coverage_table().semi_join(tried, "identifier").select("event_id")
    items = s.filter(s.state.isin(IN_DOUBT))
    return sent.union(x.semi_join(items, x.settlement_id == items.id).select("event_id"), distinct=True)


def _owed_back() -> ir.Table:
    """Events that cannot be billed as they are now, and were billed as they were before."""
    e, c = events_table(), valid_coverage()
    now_free = (e.sync_status == "excluded") | ((e.sync_status == "error") & e.customer_id.isnull())
    free = e.filter(now_free, e.meter_event_identifier.isnull()).select("id")
    mine = c.semi_join(free, c.event_id == free.id)
    parts = mine.group_by("event_id", "customer_id").aggregate(credits=mine.credits.sum())
    return parts.filter(parts.credits != 0).select(id="event_id").distinct()


def valid_coverage() -> ir.Table:
    """Coverage by intents and invoice items that count, with the `stamp` of each."""
    i = intents_table()
    valid = i.filter(i.state.notin(VOID)).select("identifier", "stamp")
    sent = coverage_table().join(valid, "identifier").select("event_id", "customer_id", "credits", "stamp")
    return sent.union(_settled(INVOICE_ITEM), distinct=False)


def _settled(kind: str) -> ir.Table:
    """What settlements of a kind that count settle of each event."""
    s, x = settlements_table(), settlement_parts_table()
    live = s.filter(s.kind == kind, s.state.isin(LIVE))
    return x.semi_join(live, x.settlement_id == live.id).select("event_id", "customer_id", "credits", "stamp")


def covered_candidates(settled_before: datetime) -> Question:
    """A question: credits covered of the `candidates`, per event and customer, with the newest stamp."""
    return ask(_covered, bound_time(settled_before))


def _covered(settled_before: Bound) -> ir.Table:
    return covered(candidate_events(settled_before))


def taken_off(owed: ir.DecimalValue, written_off: ir.DecimalValue) -> ir.DecimalValue:
    """How much of what is owed a write-off takes: all of it at most (`stripe.intents.without_written_off`)."""
    nothing = Decimal(0)
    return ibis.greatest(ibis.least(owed, nothing), ibis.least(ibis.greatest(owed, nothing), written_off))


def covered(events: ir.Table) -> ir.Table:
    """The credits covered by intents and invoice items, and those written off, of some events, per event and customer.

    A write-off follows its event to whoever is to pay by now: nobody does.
    """
    c, w, nothing = valid_coverage(), _settled(WRITE_OFF), ibis.literal(Decimal(0), "decimal(18, 6)")
    paid = c.semi_join(events, c.event_id == events.id).mutate(written_off=nothing)
    own = events.select(own="id", payer="customer_id")
    lifted = w.join(own, w.event_id == own.own)
    lifted = lifted.mutate(
        customer_id=ibis.ifelse(lifted.credits > 0, lifted.payer, lifted.customer_id),
        written_off=lifted.credits,
        credits=nothing,
    )
    names = ("event_id", "customer_id", "credits", "stamp", "written_off")
    both = paid.select(*names).union(lifted.select(*names), distinct=False)
    return both.group_by("event_id", "customer_id").aggregate(
        credits=both.credits.sum().cast("decimal(18, 6)"),
        written_off=both.written_off.sum().cast("decimal(18, 6)"),
        stamp=both.stamp.max(),
    )


def carried_credits() -> Question:
    """A question: the credits covered by valid intents that no whole credit has carried yet, per customer."""
    return ask(carried)


def carried() -> ir.Table:
    """The expression of `carried_credits`."""
    i = intents_table()
    valid = i.filter(i.state.notin(VOID))
    summed = valid.group_by("customer_id").aggregate(covered=valid.credits.sum(), sent=valid.value.sum())
    return summed.select("customer_id", carried=summed.covered - summed.sent.cast("decimal(38, 6)"))


def newest_revisions(since: datetime, settled_before: datetime) -> Question:
    """A question: newest revision per customer and source, of stamps since then and of what ever covered candidates.

    Their own intents may be older than they are now: a changed event may begin later than it did when it was sent.
    """
    return ask(_revisions, bound_time(since), bound_time(settled_before))


def _revisions(since: Bound, settled_before: Bound) -> ir.Table:
    i, c = intents_table(), coverage_table()
    events = candidate_events(settled_before)
    own = c.semi_join(events, c.event_id == events.id)
    found = i.filter((i.stamp >= since.scalar) | i.identifier.isin(own.identifier))
    return found.group_by("customer_id", "source").aggregate(revision=found.revision.max())


def open_intents() -> Question:
    """A question: intents whose outcome is not known, oldest first."""
    return ask(_open_intents)


def _open_intents() -> ir.Table:
    i = intents_table()
    return i.filter(i.state.isin(OPEN)).order_by("stamp", "identifier")


def an_open_intent() -> Question:
    """A question: one of the `open_intents`, if there is any."""
    return ask(_an_open_intent)


def _an_open_intent() -> ir.Table:
    return _open_intents().limit(1)


def intents_of_event(event_id: str) -> Question:
    """A question: every intent that ever covered an event, oldest first, with the event's part as `part`."""
    return ask(_intents_of_event, bound_text(event_id))


def _intents_of_event(event_id: Bound) -> ir.Table:
    c = coverage_table()
    part = c.filter(c.event_id == event_id.scalar).select("identifier", part="credits")
    return part.join(intents_table(), "identifier").order_by("created_at", "stamp")
