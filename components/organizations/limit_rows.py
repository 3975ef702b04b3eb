"""Tables of limits and notices, and their sort orders. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from billing_core.ledger.notices import Reached
from billing_core.organizations.forecast import Forecast, NotEnough
from billing_core.organizations.limits import Limit, PlanTotal, percent_of
from billing_core.organizations.notices_service import RaisedNotice
from billing_core.organizations.table import label
from billing_core.values.counts import count_of
from components.organizations.formats import cut
from components.organizations.texts import NO_CUSTOMER, delivery_text, plan_text, runs_out_text, state_words
from components.shared.formats import UNKNOWN, count, cut_percent, moment, percent, short_credits
from components.shared.periods import Period

# ── one limit ────────────────────────────────────────────────────────────────────────────────────


def events_query(limit: Limit, now: datetime, zone: ZoneInfo) -> dict[str, Any]:
    """URL parameters of Usage Events for a limit's customer, on the days its period has touched so far; all time
    without one.
    """
    query: dict[str, Any] = {"period": Period.ALL_TIME.value}
    if limit.period_start is not None and limit.period_end is not None:
        days = (limit.period_start, min(now, limit.period_end - timedelta(microseconds=1)))
        first, last = (time.astimezone(zone).date().isoformat() for time in days)
        query = {"period": Period.CUSTOM.value, "first_day": first, "last_day": last}
    if limit.customer_id is not None:
        return {**query, "customer": limit.customer_id}
    return {**query, "organization": limit.organization_id, "without": "customer"}


# ── the table ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Sort:
    """A sort order of the table of limits; `key` is `None` for rows that come last whatever the direction."""

    label: str
    key: Callable[[Limit, datetime, Mapping[str, str]], Any]
    descending: bool = True


SORTS: Mapping[str, Sort] = {
    "urgency": Sort("Runs out first", lambda limit, now, _: _runs_out(limit, now)),
    "share": Sort("Share used", lambda limit, _, __: limit.percent_used),
    "used": Sort("Credits used", lambda limit, _, __: limit.used),
    "end": Sort("Period end", lambda limit, _, __: limit.period_end, descending=False),
    "organization": Sort("Organization", lambda limit, _, names: _called(limit, names).casefold(), descending=False),
    "customer": Sort("Customer", lambda limit, _, __: limit.customer_id, descending=False),
}
"""Name in the URL → order."""

DEFAULT_SORT = "urgency"


def _runs_out(limit: Limit, now: datetime) -> tuple[bool, Decimal] | None:
    """What is used up already comes before what will be."""
    urgency, used = limit.urgency(now), limit.percent_used
    return None if urgency is None else (used is not None and used >= 100, urgency)


def arranged(
    limits: Sequence[Limit],
    names: Mapping[str, str],
    now: datetime,
    *,
    find: str = "",
    plan: str | None = None,
    sort: str = DEFAULT_SORT,
) -> list[Limit]:
    """The limits that a search and a choice of plan leave, in sort order; unknown values last.

    `find` is looked for, case-blind, in id and name of the organization, customer, plan and state; `plan` is the text
    of the plan's column.
    """
    needle = find.strip().casefold()
    found = [
        limit
        for limit in limits
        if (plan is None or plan_text(limit) == plan) and (not needle or needle in _searched(limit, names))
    ]
    order = SORTS[sort]
    found.sort(key=lambda limit: (limit.organization_id is None, limit.organization_id or "", limit.customer_id or ""))
    known = [limit for limit in found if order.key(limit, now, names) is not None]
    known.sort(key=lambda limit: order.key(limit, now, names), reverse=order.descending)
    return known + [limit for limit in found if order.key(limit, now, names) is None]


def _called(limit: Limit, names: Mapping[str, str]) -> str:
    return label(limit.organization_id, names)


def _searched(limit: Limit, names: Mapping[str, str]) -> str:
    organizations = [_called(limit, names), *(label(other, names) for other in limit.shared_with)]
    parts = (
        *organizations,
        limit.organization_id or "",
        *limit.sharing,
        limit.customer_id or NO_CUSTOMER,
        plan_text(limit),
        limit.state,
    )
    return "\n".join(parts).casefold()


def plan_rows(totals: Sequence[PlanTotal]) -> dict[str, list[str]]:
    """The totals by plan as a table; sums are over the customers of which both sides are known."""

    def sums(total: PlanTotal, value: Decimal | int) -> str:
        if not total.known:
            return "" if total.state not in {None, UNKNOWN} else UNKNOWN
        partly = "" if total.known == total.customers else f" (of {total.known:,} known)"
        return f"{cut(value)}{partly}"

    return {
        "Plan": [total.plan or state_words(total.state or UNKNOWN) for total in totals],
        "Customers": [count(total.customers) for total in totals],
        "Credits included": [sums(total, total.included) for total in totals],
        "Credits used": [sums(total, total.used) for total in totals],
        "Used": ["" if total.state not in {None, UNKNOWN} else cut_percent(total.percent_used) for total in totals],
    }


def is_about(forecast: Forecast | NotEnough | None, limit: Limit) -> bool:
    """Whether an organization's forecast is about this limit: it is about one of its customers' only."""
    asked = None if forecast is None else forecast.asked
    if asked is None or asked.included is None:
        return False
    return (asked.included, asked.period_end) == (limit.included, limit.period_end)


FORECAST_COLUMNS = ("Expected at period end", "Runs out", "Off in back-tests")


def forecast_cells(forecast: Forecast | NotEnough | None, limit: Limit) -> tuple[str, str, str]:
    """A forecast as cells of `FORECAST_COLUMNS`; empty where there is none about this limit."""
    if forecast is None or limit.used is None:
        return "", "", ""
    if isinstance(forecast, NotEnough):
        return "not enough data", "", ""
    if not is_about(forecast, limit):
        return "", "", ""
    expected = f"{short_credits(forecast.expected)} ({short_credits(forecast.low)} – {short_credits(forecast.high)})"
    test = forecast.back_test
    error = "not tested" if test.error is None else f"{percent(test.error)} ({count_of(test.origins, 'test')})"
    return expected, runs_out_text(forecast), error


# ── notices ──────────────────────────────────────────────────────────────────────────────────────


def reached_rows(found: Sequence[Reached], names: Mapping[str, str], zone: ZoneInfo) -> dict[str, list[str]]:
    """The thresholds that were reached, as a table."""
    return {
        "Organization": [label(one.organization_id, names) for one in found],
        "Customer": [one.customer_id for one in found],
        "Plan": [one.plan or UNKNOWN for one in found],
        "Reached": [f"{one.threshold:,} %" for one in found],
        "Used": [cut_percent(percent_of(one.used, one.included)) for one in found],
        "Credits": [f"{cut(one.used)} of {cut(one.included)}" for one in found],
        f"Period ends ({zone.key})": [moment(one.period_end, zone) for one in found],
    }


def notice_rows(found: Sequence[RaisedNotice], names: Mapping[str, str], zone: ZoneInfo) -> dict[str, list[str]]:
    """Notices as a table, with when they were raised, their delivery, and who saw them, if somebody did."""
    notices = [one.notice for one in found]
    rows = {
        **reached_rows(notices, names, zone),
        f"Raised ({zone.key})": [moment(one.raised_at, zone) for one in notices],
        "Delivery": [delivery_text(one.delivery, zone) for one in found],
    }
    if any(not one.is_open for one in notices):
        rows[f"Seen ({zone.key})"] = [f"{one.seen_by}, {moment(one.seen_at, zone)}" for one in notices]
    return rows
