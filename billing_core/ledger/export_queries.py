"""Questions for exports of usage events: in order, by day, and the totals that files are compared with."""

from __future__ import annotations

from collections.abc import Sequence

import ibis
import ibis.expr.types as ir

from billing_core.ledger.compiled import Bound, Question, ask, bound_number
from billing_core.ledger.queries import (
    PART_COLUMNS,
    Chosen,
    LocalTime,
    Selection,
    amount,
    choose,
    local_day,
    selected,
    with_moment,
)
from billing_core.ledger.schema import (
    INVOICE_ITEM,
    LIVE,
    QUARTER_HOUR_SECONDS,
    WRITE_OFF,
    settlement_parts_table,
    settlements_table,
)
from billing_core.ledger.sync_queries import taken_off

DAY_KEYS = (
    "organization_id",
    "customer_id",
    "chatflow_id",
    "chatflow_name",
    "environment",
    "models",
    "ai_credentials_ownership",
    "rate_card_version",
    "sync_status",
)
"""What events of a day are told apart by."""

DAY_COUNTS = ("tokens_in", "tokens_out", "tokens_total")


def first_rows(selection: Selection, keys: Sequence[str], columns: Sequence[str], *, limit: int) -> Question:
    """A question: the first events of a selection by `keys`, unknown ones last; `moment` is when an event counts."""
    return ask(_first_rows, choose(selection), tuple(keys), tuple(columns), bound_number(limit))


def _first_rows(chosen: Chosen, keys: tuple[str, ...], columns: tuple[str, ...], limit: Bound) -> ir.Table:
    t = with_moment(chosen)
    return t.order_by(*(t[key].asc(nulls_first=False) for key in keys)).limit(limit.rows).select(*columns)


def all_rows(selection: Selection, columns: Sequence[str]) -> Question:
    """A question: the events of a selection in any order; `moment` is when an event counts."""
    return ask(_all_rows, choose(selection), tuple(columns))


def _all_rows(chosen: Chosen, columns: tuple[str, ...]) -> ir.Table:
    return with_moment(chosen).select(*columns)


def cells(selection: Selection, seconds: int) -> Question:
    """A question: how many events (`rows`) count in each span of `seconds`, `cell` being its number since 1970."""
    return ask(_cells, choose(selection), bound_number(seconds))


def _cells(chosen: Chosen, seconds: Bound) -> ir.Table:
    t = with_moment(chosen)
    cells = t.mutate(cell=t.moment.epoch_seconds() // seconds.scalar)
    return cells.group_by("cell").aggregate(rows=cells.count())


def days(selection: Selection, clock: LocalTime) -> Question:
    """A question: a row per local day (days since 1970) and combination of `DAY_KEYS`, unknown ones last."""
    return ask(_days, choose(selection), clock)


def _by_day(chosen: Chosen, clock: LocalTime) -> ir.Table:
    t = with_moment(chosen)
    quarter = (t.moment.epoch_seconds() // QUARTER_HOUR_SECONDS).cast("int32")
    t = t.mutate(day=local_day(quarter, clock), amount=amount(t))
    summed = (*DAY_COUNTS, "storage_gb", "cost_usd", *PART_COLUMNS, "credits_total")
    return t.group_by("day", *DAY_KEYS).aggregate(
        events=t.count(), amount_usd=t.amount.sum(), **{name: t[name].sum() for name in summed}
    )


def _days(chosen: Chosen, clock: LocalTime) -> ir.Table:
    grouped = _by_day(chosen, clock)
    return grouped.order_by(*(grouped[name].asc(nulls_first=False) for name in ("day", *DAY_KEYS)))


def day_count(selection: Selection, clock: LocalTime) -> Question:
    """A question: how many rows the answer to `days` has."""
    return ask(_day_count, choose(selection), clock)


def _day_count(chosen: Chosen, clock: LocalTime) -> ir.Table:
    grouped = _by_day(chosen, clock)
    return grouped.aggregate(rows=grouped.count())


def charged_parts(selection: Selection) -> Question:
    """A question: how many parts of events (AI tokens, compute, storage) are not 0 credits, per rate card."""
    return ask(_charged_parts, choose(selection))


def _charged_parts(chosen: Chosen) -> ir.Table:
    t = selected(chosen)
    parts = [t[name] != 0 for name in PART_COLUMNS]
    counted = t.mutate(charged=sum((part.cast("int64") for part in parts[1:]), parts[0].cast("int64")))
    return counted.group_by("rate_card_version").aggregate(charged=counted.charged.sum())


def credits_by_price(selection: Selection) -> Question:
    """A question: credits by type per organization and credit price."""
    return ask(_credits_by_price, choose(selection))


def _credits_by_price(chosen: Chosen) -> ir.Table:
    t = selected(chosen)
    return t.group_by("organization_id", "credit_price_usd").aggregate(**{name: t[name].sum() for name in PART_COLUMNS})


def credits_by_customer(selection: Selection) -> Question:
    """A question: credits by type per customer and credit price; without a customer last."""
    return ask(_credits_by_customer, choose(selection))


def _credits_by_customer(chosen: Chosen) -> ir.Table:
    t = selected(chosen)
    grouped = t.group_by("customer_id", "credit_price_usd").aggregate(**{name: t[name].sum() for name in PART_COLUMNS})
    return grouped.order_by(grouped.customer_id.asc(nulls_first=False), grouped.credit_price_usd.asc())


def write_offs(selection: Selection) -> Question:
    """A question: what was written off of a selection's events, in exact US dollars per customer and settlement, with
    its month and when it was made, and taken back.

    Of an event that was corrected since, at most what it comes to now.
    """
    return ask(_write_offs, choose(selection))


def _write_offs(chosen: Chosen) -> ir.Table:
    t = selected(chosen)
    events = t.mutate(amount=amount(t)).group_by("id").aggregate(amount=ibis._.amount.sum())
    x = settlement_parts_table()
    parts = x.join(events, x.event_id == events.id)
    written = taken_off(parts.amount, parts.amount_usd)
    parts = parts.select("settlement_id", "customer_id", written=written)
    made = _made(WRITE_OFF).select("month", "made_at", "taken_back_at", settlement_id="id")
    found = parts.join(made, "settlement_id")
    keys = ("customer_id", "month", "made_at", "taken_back_at")
    return found.group_by(*keys).aggregate(amount_usd=found.written.sum())


def _made(kind: str) -> ir.Table:
    """Settlements of a kind that count, or did until they were taken back."""
    s = settlements_table()
    return s.filter(s.kind == kind, s.state.isin((*LIVE, "taken_back")))


def invoice_items(selection: Selection) -> Question:
    """A question: invoice items of their own for a selection's events, if all events of an item are in it: customer,
    month, exact US dollars, cents, and when each was made, and taken back.
    """
    return ask(_invoice_items, choose(selection))


def _invoice_items(chosen: Chosen) -> ir.Table:
    ids = selected(chosen).select("id").distinct()
    x = settlement_parts_table()
    parts = x.filter(x.event_id.isin(ids.id))
    sums = parts.group_by("settlement_id", "customer_id").aggregate(exact=parts.amount_usd.sum())
    made = _made(INVOICE_ITEM)
    made = made.filter(made.currency == "usd")
    made = made.select("month", "made_at", "taken_back_at", "amount_usd", "amount", settlement_id="id")
    found = sums.join(made, "settlement_id")
    found = found.filter(found.exact == found.amount_usd)
    return found.select("customer_id", "month", "exact", "amount", "made_at", "taken_back_at").order_by(
        "customer_id", "made_at"
    )
