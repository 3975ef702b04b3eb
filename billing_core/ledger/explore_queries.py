"""Questions about usage events grouped by any dimensions and by days, weeks or months, for Explore.

An event's usage per model is a list; what it cost in credits is not. So events that used one model at most are summed
up by the engine, and the others are read (`mixed`) and split by `rating.parts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import reduce
from zoneinfo import ZoneInfo

import ibis
import ibis.expr.types as ir

from billing_core.ledger.compiled import Bound, Listed, Question, among, ask, bound_list, bound_number
from billing_core.ledger.queries import (
    QUARTERS_PER_DAY,
    THURSDAY,
    Chosen,
    LocalTime,
    Selection,
    choose,
    local_quarter_hour,
    local_time,
    with_moment,
)
from billing_core.ledger.schema import MODEL_SEPARATOR, QUARTER_HOUR_SECONDS
from billing_core.ledger.statistics import P95
from billing_core.types import Flag

STORED = {
    "organization": "organization_id",
    "customer": "customer_id",
    "user": "user_id",
    "chatflow": "chatflow_id",
    "environment": "environment",
    "status": "sync_status",
}
"""Dimensions that are one column of an event → that column; empty text is no value."""

SUMMED = ("credits_ai_tokens", "credits_compute", "credits_storage", "credits_total", "cost_usd", "tokens_total")
RATED_BY = ("credit_price_usd", "own_key", "has_cost")
"""What rows are grouped by beside what was asked, so that amounts and margins follow exactly from sums."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """What events are grouped by: dimensions of `STORED`, and days, weeks or months (`grain`) of a clock.

    shift: Quarter hours of local time that an earlier window is moved by, to lie on the one it is compared with.
    shown: The groups (`label`) that are told apart; all others are one, with `is_other`. `None`: every group.
    """

    keys: tuple[str, ...]
    grain: str | None = None
    clock: LocalTime | None = None
    shift: Bound | None = None
    shown: Listed | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of an answer that say which group it is of; `period` counts days, weeks or months."""
        others = () if self.shown is None else ("is_other",)
        return (*self.keys, *others, *(["period"] if self.grain else []))


def label(values: Sequence[str | None]) -> str:
    """The values of a group as one text."""
    return MODEL_SEPARATOR.join(value or "" for value in values)


def showing(by: Grouping, groups: Iterable[Sequence[str | None]]) -> Grouping:
    """The grouping with only these groups told apart."""
    return replace(by, shown=bound_list(map(label, groups)))


def by_period(
    keys: tuple[str, ...], grain: str, zone: ZoneInfo, bounds: tuple[datetime, datetime], shift: timedelta
) -> Grouping:
    """A grouping by periods of the reporting timezone, for times within `bounds`, moved by `shift` of local time.

    Periods are counted: days since 1970-01-01, ISO weeks since that of 1969-12-29, months since January of year 0.
    """
    quarters = int(shift.total_seconds()) // QUARTER_HOUR_SECONDS
    return Grouping(keys, grain, local_time(zone, *bounds), bound_number(quarters) if quarters else None)


def _grouped(chosen: Chosen, by: Grouping) -> ir.Table:
    """The events of a selection with a column for each key, their period, and what `RATED_BY` names."""
    t = with_moment(chosen)
    keys = {name: t[STORED[name]] if name == "status" else t[STORED[name]].nullif("") for name in by.keys}
    if by.shown is not None:
        texts = [keys[name].cast("string").fill_null("") for name in by.keys]
        keys["is_other"] = ~among(reduce(lambda left, right: left + MODEL_SEPARATOR + right, texts), by.shown)
        keys |= {name: ibis.ifelse(keys["is_other"], ibis.null("string"), keys[name]) for name in by.keys}
    if by.grain is not None and by.clock is not None:
        quarter = local_quarter_hour(t.quarter_hour, by.clock)
        moved = quarter if by.shift is None else quarter + by.shift.scalar
        keys["period"] = _period(moved // QUARTERS_PER_DAY, by.grain)
    return t.mutate(**keys, own_key=t.flags.contains(Flag.OWN_KEY), has_cost=t.cost_usd.notnull())


def _period(day: ir.IntegerValue, grain: str) -> ir.IntegerValue:
    if grain == "day":
        return day.cast("int64")
    if grain == "week":
        return ((day + THURSDAY) // 7).cast("int64")
    first = ibis.date(1970, 1, 1) + day.cast("int64").as_interval("D")
    return (first.year() * 12 + first.month() - 1).cast("int64")


@dataclass(frozen=True, slots=True)
class Splitting:
    """Which events are split: those that used several models; with classes or lines, those that used anything.

    with_lines: A rate card prices more than models and classes, so that what was used line by line is needed.
    """

    with_classes: bool
    with_lines: bool


def _is_mixed(t: ir.Table, splitting: Splitting) -> ir.BooleanValue:
    models = t.usage.length().fill_null(0)
    if splitting.with_lines:
        return (models > 0) | (t.usage_lines.length().fill_null(0) > 0)
    return models > (0 if splitting.with_classes else 1)


def _only_model(t: ir.Table) -> ir.StringValue:
    """The model of an event that is not mixed; null: none is named, or several, and nobody knows what each used."""
    named = t.models.substr(1, t.models.length() - 2)
    only = ibis.ifelse(named.contains(MODEL_SEPARATOR), ibis.null("string"), named.nullif(""))
    return ibis.ifelse(t.usage.length() == 1, t.usage[0]["model"], only)


def sums(selection: Selection, by: Grouping, names: tuple[str, ...], *, is_rated: bool) -> Question:
    """A question: events and the sums of the columns `names` per group and, if wanted, per `RATED_BY`."""
    return ask(_sums, choose(selection), by, names, is_rated)


def _sums(chosen: Chosen, by: Grouping, names: tuple[str, ...], is_rated: bool) -> ir.Table:
    t = _grouped(chosen, by)
    return _summed(t, (*by.columns, *(RATED_BY if is_rated else ())), names)


def _summed(t: ir.Table, columns: tuple[str, ...], names: tuple[str, ...] = SUMMED) -> ir.Table:
    return t.group_by(*columns).aggregate(events=t.count(), **{name: t[name].sum() for name in names})


def sums_by_model(selection: Selection, by: Grouping, splitting: Splitting) -> Question:
    """A question: `sums` per model as well, and `is_mixed`: those rows are of events that are to be split."""
    return ask(_sums_by_model, choose(selection), by, splitting)


def _sums_by_model(chosen: Chosen, by: Grouping, splitting: Splitting) -> ir.Table:
    t = _grouped(chosen, by)
    is_mixed = _is_mixed(t, splitting)
    t = t.mutate(is_mixed=is_mixed, model=ibis.ifelse(is_mixed, ibis.null("string"), _only_model(t)))
    return _summed(t, (*by.columns, *RATED_BY, "model", "is_mixed"))


def mixed(selection: Selection, by: Grouping, splitting: Splitting) -> Question:
    """A question: the events that are to be split, with what they used."""
    return ask(_mixed, choose(selection), by, splitting)


def _mixed(chosen: Chosen, by: Grouping, splitting: Splitting) -> ir.Table:
    t = _grouped(chosen, by)
    t = t.filter(_is_mixed(t, splitting))
    lines = t.usage_lines if splitting.with_lines else ibis.null(t.usage_lines.type())
    used = ("rate_card_version", "credits_ai_tokens", "tokens_total", "is_reversal", "usage")
    return t.select(*by.columns, *RATED_BY, *used, usage_lines=lines)


def spread(selection: Selection, by: Grouping, *, by_model: bool, with_latency: bool) -> Question:
    """A question: events, distinct people and latency in seconds per group: what does not add up over groups.

    An event counts for each model it names. `latency_p95` is a binary float.
    """
    return ask(_spread, choose(selection), by, by_model, with_latency)


def _spread(chosen: Chosen, by: Grouping, by_model: bool, with_latency: bool) -> ir.Table:
    t = _grouped(chosen, by)
    columns = by.columns
    if by_model:
        named = t.models.substr(1, t.models.length() - 2).fill_null("")
        t = t.mutate(model=named.split(MODEL_SEPARATOR).unnest()).mutate(model=ibis._.model.nullif(""))
        columns = (*columns, "model")
    counts = {"events": t.count(), "users": t.user_id.nullif("").nunique(), "latency_sum": t.latency_seconds.sum()}
    if with_latency:
        counts["latency_p95"] = t.latency_seconds.cast("float64").quantile(P95)
    return (t.group_by(*columns) if columns else t).aggregate(**counts)
