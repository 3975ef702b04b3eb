"""The daily history of organizations, as questions about a `Selection`. Pure: nothing here runs anything.

Days are those of the reporting timezone, counted from 1970-01-01. The selection's own window bounds every question.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from zoneinfo import ZoneInfo

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from billing_core.ledger.compiled import Bound, Listed, Question, among, ask, bound_list, bound_text, bound_time
from billing_core.ledger.queries import (
    Chosen,
    LocalTime,
    Selection,
    choose,
    distinct_values,
    local_day,
    local_time,
    selected,
)

GIVEN_DAYS = "given_days"
"""The name under which `segments` expects the table `given_days`."""

_GIVEN_COLUMNS = {"organization_id": "string", "day": "int32"}


def per_day(selection: Selection, zone: ZoneInfo) -> Question:
    """A question: credits per organization, customer, credit price and day; amounts follow exactly from these rows."""
    return ask(_per_day, choose(selection), _clock(selection, zone))


def _per_day(chosen: Chosen, clock: LocalTime) -> ir.Table:
    t = _with_day(chosen, clock)
    return t.group_by("organization_id", "customer_id", "credit_price_usd", "day").aggregate(
        credits=t.credits_total.sum()
    )


def pairs(selection: Selection) -> Question:
    """A question: every organization and customer that an event names together."""
    return distinct_values(selection, "organization_id", "customer_id")


def given_days(days: Iterable[tuple[str | None, int]]) -> pa.Table:
    """A table of organizations and days, one row each, for `segments`."""
    rows = [{"organization_id": organization, "day": day} for organization, day in days]
    return pa.Table.from_pylist(rows, schema=pa.schema([("organization_id", pa.string()), ("day", pa.int32())]))


def segments(selection: Selection, zone: ZoneInfo, organizations: Iterable[str | None]) -> Question:
    """A question: events and credits per organization, day, chatflow and set of models, on the days of the table
    `given_days`.

    Events without credits are not counted: excluded ones are no usage. What a correction takes back counts as one
    less. `organizations` are those of that table.
    """
    named = bound_list(one for one in organizations if one is not None)
    return ask(_segments, choose(selection), _clock(selection, zone), named)


def _segments(chosen: Chosen, clock: LocalTime, organizations: Listed) -> ir.Table:
    t = _with_day(chosen, clock)
    t = t.filter(t.credits_total != 0, among(t.organization_id, organizations) | t.organization_id.isnull())
    wanted = ibis.table(_GIVEN_COLUMNS, name=GIVEN_DAYS)
    t = t.semi_join(wanted, [t.organization_id.identical_to(wanted.organization_id), t.day == wanted.day])
    return (
        t.mutate(chatflow=_chatflow(t), one=ibis.ifelse(t.credits_total < 0, -1, 1))
        .group_by("organization_id", "day", "chatflow", "models")
        .aggregate(events=ibis._.one.sum(), credits=ibis._.credits_total.sum())
    )


def slices(selection: Selection, organization_id: str | None, middle: datetime) -> Question:
    """A question: credits of one organization per value of each dimension (`chatflow`, `model`, `user`), before and
    since `middle`.

    Columns: `dimension`, `value` (null: not named; models as stored), `name` of a chatflow, `is_now`, `credits`.
    """
    organization = None if organization_id is None else bound_text(organization_id)
    return ask(_slices, choose(selection), organization, bound_time(middle))


def _slices(chosen: Chosen, organization: Bound | None, middle: Bound) -> ir.Table:
    t = selected(chosen)
    t = t.filter(t.organization_id.isnull() if organization is None else t.organization_id == organization.scalar)
    t = t.mutate(is_now=ibis.coalesce(t.accounted_at, t.timestamp) >= middle.scalar)
    values = {"chatflow": _chatflow(t), "model": t.models.nullif(""), "user": t.user_id.nullif("")}
    parts = []
    for dimension, value in values.items():
        sliced = t.mutate(value=value, dimension=ibis.literal(dimension))
        name = sliced.chatflow_name.max() if dimension == "chatflow" else ibis.null("string")
        parts.append(
            sliced.group_by("dimension", "value", "is_now").aggregate(name=name, credits=sliced.credits_total.sum())
        )
    return ibis.union(*parts, distinct=False)


def _clock(selection: Selection, zone: ZoneInfo) -> LocalTime:
    if selection.start is None or selection.end is None:
        raise ValueError("a daily history needs a window with both ends")
    return local_time(zone, selection.start, selection.end)


def _with_day(chosen: Chosen, clock: LocalTime) -> ir.Table:
    t = selected(chosen)
    return t.mutate(day=local_day(t.quarter_hour, clock).cast("int32"))


def _chatflow(t: ir.Table) -> ir.StringValue:
    """By id, or by name where a trace has no id."""
    return ibis.coalesce(t.chatflow_id.nullif(""), t.chatflow_name.nullif(""))
