"""Questions about organizations, as questions about a `Selection`. Pure: nothing here runs anything.

Sums and counts of different kinds are separate, small queries: together in one they would make the engine carry every
column through every grouping.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import ibis
import ibis.expr.types as ir

from billing_core.ledger.compiled import Bound, Question, ask, bound_time
from billing_core.ledger.queries import (
    Chosen,
    LocalTime,
    Selection,
    choose,
    distinct_values,
    local_day,
    local_time,
    selected,
    with_moment,
)
from billing_core.types import Flag
from billing_core.values.usage_frame import TOKEN_CLASSES

P95 = 0.95
ORGANIZATION = "organization_id"


def sums(selection: Selection) -> Question:
    """A question: sums per organization, sync status, credit price and whether the event's cost is known and ours.

    `cost_kind`: `ours`, `theirs` (the customer's own key) or `unknown`, as all are to those who see no costs.
    Amounts follow exactly from these rows.
    """
    return ask(_sums, choose(selection))


def _sums(chosen: Chosen) -> ir.Table:
    t = selected(chosen)
    is_theirs = t.flags.contains(Flag.OWN_KEY) & (chosen.organizations is None)
    kind = ibis.cases((is_theirs, "theirs"), (t.cost_usd.isnull(), "unknown"), else_="ours")
    summed = (
        "credits_ai_tokens",
        "credits_compute",
        "credits_storage",
        "cost_usd",
        "tokens_in",
        "tokens_out",
        "tokens_total",
        "latency_seconds",
    )
    t = t.mutate(cost_kind=kind)
    grouped = t.group_by(ORGANIZATION, "sync_status", "credit_price_usd", "cost_kind")
    return grouped.aggregate(events=t.count(), **{name: t[name].sum() for name in summed})


def counts(selection: Selection) -> Question:
    """A question: distinct known people, chats and chatflows, answers and failures per organization."""
    return ask(_counts, choose(selection))


def _counts(chosen: Chosen) -> ir.Table:
    t = selected(chosen)
    return t.group_by(ORGANIZATION).aggregate(
        chats=_present(t.session_id).nunique(),
        users=_present(t.user_id).nunique(),
        chatflows=ibis.coalesce(_present(t.chatflow_id), _present(t.chatflow_name)).nunique(),
        messages_generated=t.count(where=t.tokens_out > 0),
        judged_events=t.has_error.count(),
        failed_events=t.count(where=t.has_error),
    )


def _present(column: ir.StringValue) -> ir.StringValue:
    return column.nullif("")


def latency(selection: Selection, *, by_organization: bool) -> Question:
    """A question: the 95th percentile of latency in seconds, per organization or of all events; binary floats."""
    return ask(_latency, choose(selection), by_organization)


def _latency(chosen: Chosen, by_organization: bool) -> ir.Table:
    t = selected(chosen)
    seconds = t.latency_seconds.cast("float64")
    grouped = t.group_by(ORGANIZATION) if by_organization else t
    return grouped.aggregate(p95=seconds.quantile(P95))


def models(selection: Selection) -> Question:
    """A question: the sets of models each organization used, as stored."""
    return distinct_values(selection, ORGANIZATION, "models")


def customers(selection: Selection) -> Question:
    """A question: the customers each organization's events are billed to."""
    return ask(_customers, choose(selection))


def _customers(chosen: Chosen) -> ir.Table:
    t = selected(chosen)
    return t.filter(t.customer_id.notnull()).select(ORGANIZATION, "customer_id").distinct()


def token_classes(selection: Selection) -> Question:
    """A question: tokens by class per organization, of the events that name any."""
    return ask(_token_classes, choose(selection))


def _token_classes(chosen: Chosen) -> ir.Table:
    t = with_moment(chosen)
    sign = ibis.ifelse(t.is_reversal, -1, 1)
    part = t.filter(t.usage.length() > 0).select(ORGANIZATION, sign=sign, part=t.usage.unnest())
    return part.group_by(ORGANIZATION).aggregate(
        **{name: (part.part[name] * part.sign).sum() for name in TOKEN_CLASSES}
    )


def credits_per_day(selection: Selection, zone: ZoneInfo, start: datetime, end: datetime) -> Question:
    """A question: credits and events per organization and day of the reporting timezone (days since 1970)."""
    return ask(_credits_per_day, choose(selection), local_time(zone, start, end))


def _credits_per_day(chosen: Chosen, clock: LocalTime) -> ir.Table:
    t = selected(chosen)
    t = t.mutate(day=local_day(t.quarter_hour, clock))
    return t.group_by(ORGANIZATION, "day").aggregate(events=t.count(), credits_total=t.credits_total.sum())


def active_users(selection: Selection, zone: ZoneInfo, start: datetime, end: datetime) -> Question:
    """A question: how many people (per organization) were active on each day of the reporting timezone."""
    return ask(_active_users, choose(selection), local_time(zone, start, end))


def _active_users(chosen: Chosen, clock: LocalTime) -> ir.Table:
    t = selected(chosen)
    t = t.mutate(day=local_day(t.quarter_hour, clock), user=_present(t.user_id))
    pairs = t.select("day", ORGANIZATION, "user").distinct()
    named = pairs.filter(pairs.user.notnull())
    return named.group_by("day").aggregate(users=named.count())


def new_users(selection: Selection, zone: ZoneInfo, start: datetime, end: datetime) -> Question:
    """A question: how many people had their first event ever on each day of the period."""
    return ask(_new_users, choose(replace(selection, start=None)), local_time(zone, start, end), bound_time(start))


def _new_users(chosen: Chosen, clock: LocalTime, start: Bound) -> ir.Table:
    t = selected(chosen)
    t = t.mutate(user=_present(t.user_id))
    named = t.filter(t.user.notnull())
    firsts = named.group_by(ORGANIZATION, "user").aggregate(
        quarter_hour=named.quarter_hour.min(), at=named.timestamp.min()
    )
    firsts = firsts.filter(firsts.at >= start.scalar)
    firsts = firsts.mutate(day=local_day(firsts.quarter_hour, clock))
    return firsts.group_by("day").aggregate(users=firsts.count())
