"""Explore: the filters of Usage Events that show exactly the events behind a figure. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from billing_core.types import CreditType
from billing_core.usage_events.explore_model import Dimension, Exploration, ExploreRow, PeriodLength
from components.shared.periods import Period
from components.usage_events import texts
from components.usage_events.query import WITHOUT, Filters

OF_NO_MODEL = frozenset({CreditType.COMPUTE, CreditType.STORAGE})
"""Types of credits that belong to no model and no token class."""

SEVERAL_PER_EVENT = frozenset({Dimension.MODEL, Dimension.CREDIT_TYPE})
"""Dimensions of which one event has several values: to narrow their filter can bring events that it left out."""


class NoLink(Exception):
    """No filter selects the events of a row; the text says why."""


def filters_behind(found: Exploration, row: ExploreRow, filters: Filters) -> Filters:
    """The filters that select the events of a row of an exploration of `filters`, or, for `totals`, all of them.

    An event with several models or types of credits stands behind each of them, whole.

    Raises NoLink: if no filter selects them.
    """
    if row.others is not None:
        raise NoLink(texts.NO_LINK_REST)
    values = dict(zip(found.question.by, row.values, strict=False))
    chosen: dict[str, Any] = {}
    lacking = list(filters.without)
    is_of_no_model = values.get(Dimension.CREDIT_TYPE) in OF_NO_MODEL
    for dimension, value in values.items():
        if value is None and is_of_no_model:
            continue
        if dimension is Dimension.TOKEN_CLASS:
            raise NoLink(texts.NO_LINK_OF_CLASS)
        if dimension is Dimension.MODEL and value is None and found.question.is_additive:
            raise NoLink(texts.NO_LINK_NO_MODEL)
        if value is None:
            lacking.append(dimension.value)
            continue
        given = getattr(filters, dimension.value)
        if dimension in SEVERAL_PER_EVENT and given and value not in given:
            raise NoLink(texts.NO_LINK_BOTH)
        chosen[dimension.value] = (value,)
    chosen[WITHOUT] = tuple(dict.fromkeys(lacking))
    return replace(filters, **chosen, **_days(found, row))


def _days(found: Exploration, row: ExploreRow) -> Mapping[str, Any]:
    """The days of a row's period that lie in the window of the exploration."""
    if row.period is None or found.question.grain is None:
        return {}
    zone, first = ZoneInfo(found.zone), row.period
    last = _last_day(first, found.question.grain)
    if found.start is not None:
        first = max(first, found.start.astimezone(zone).date())
    if found.end is not None:
        last = min(last, (found.end - timedelta(microseconds=1)).astimezone(zone).date())
    return {"period": Period.CUSTOM, "first_day": first, "last_day": last}


def _last_day(first: date, grain: PeriodLength) -> date:
    match grain:
        case PeriodLength.DAY:
            return first
        case PeriodLength.WEEK:
            return first + timedelta(days=6)
        case PeriodLength.MONTH:
            return (first.replace(day=1) + timedelta(days=31)).replace(day=1) - timedelta(days=1)


def unlinked(found: Exploration, filters: Filters) -> list[str]:
    """Why some rows have no link, each reason once."""
    return list(dict.fromkeys(why for row in found.rows if (why := why_not(found, row, filters))))


def why_not(found: Exploration, row: ExploreRow, filters: Filters) -> str:
    """Why a row has no link; empty if it has one."""
    try:
        filters_behind(found, row, filters)
    except NoLink as no:
        return str(no)
    return ""
