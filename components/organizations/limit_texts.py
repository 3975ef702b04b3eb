"""Texts and sort orders of limits and notices. Pure: values in, plain text out."""

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
from billing_core.organizations.notices import Delivery, DeliveryState
from billing_core.organizations.notices_service import RaisedNotice
from billing_core.organizations.table import label
from billing_core.stripe_sync.customer_status import NO_SUBSCRIPTION, UNKNOWN
from billing_core.values.counts import count_of
from components.organizations.forecast_texts import exhaustion_text, percent
from components.shared.formats import ago, count, credits_text, day_text, exact, moment
from components.shared.periods import Period

LIMITS_NOTE = (
    "Credits of the customer's events in the subscription's current period, of those the plan includes. The plan is "
    "recognised by the price ids of the rate card. Pace: a straight line through what was used so far, at the period's "
    "end; in the first 5 % of a period it says nothing."
)

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NO_PLAN = "no subscription"
NO_CUSTOMER = "no customer"

NAMED = 5
"""Organizations of a shared customer that are named."""


# ── one limit ────────────────────────────────────────────────────────────────────────────────────


def percent_text(value: Decimal | None) -> str:
    """A percentage as text: `122.4 %`, `33.33 %`, `unknown`; every digit, which are two decimals at most."""
    return UNKNOWN if value is None else f"{exact(value)} %"


def plan_text(limit: Limit) -> str:
    """The name of a limit's plan; a customer without subscription has none, anything else without a name is unknown."""
    if limit.plan is not None:
        return limit.plan
    if limit.customer_id is None:
        return NO_CUSTOMER
    return NO_PLAN if limit.state == NO_SUBSCRIPTION else UNKNOWN


def state_text(limit: Limit) -> str:
    """Stripe's subscription status in words."""
    return "" if limit.customer_id is None else _state(limit.state)


def _state(state: str) -> str:
    return NO_PLAN if state == NO_SUBSCRIPTION else state.replace("_", " ")


def used_text(limit: Limit) -> str:
    """Credits used and included: `9,500.5 of 10,000`; `unknown` for a side that is."""
    return "" if limit.is_without else f"{exact(limit.used)} of {exact(limit.included)}"


def share_text(limit: Limit) -> str:
    """Credits used as a sentence: `9,500.5 of 10,000 credits used: 95 %`, with what lies beyond the plan."""
    if limit.is_without:
        return "There is no live subscription: no credits are included, and usage is not invoiced."
    if limit.used is None or limit.included is None:
        return f"{exact(limit.used)} credits used of {exact(limit.included)} included"
    over = limit.used - limit.included
    beyond = f", {exact(over)} over the plan" if over > 0 else ""
    share = f": {percent_text(limit.percent_used)}" if limit.included else ""
    return f"{exact(limit.used)} of {exact(limit.included)} credits used{share}{beyond}"


def pace_text(limit: Limit, now: datetime) -> str:
    """The pace of a limit: `190 % (19,000.00)` at the period's end at the average rate so far."""
    if limit.is_too_early(now):
        return "too early to tell"
    pace = limit.pace(now)
    if pace is None:
        return "" if limit.is_without else UNKNOWN
    return f"{percent_text(limit.pace_percent(now))} ({credits_text(pace)})"


def shared_text(limit: Limit, names: Mapping[str, str]) -> str:
    """The other organizations of the same customer, the first few by name."""
    others = limit.shared_with
    named = ", ".join(label(other, names) for other in others[:NAMED])
    return f"{named} and {len(others) - NAMED:,} more" if len(others) > NAMED else named


def left_text(left: timedelta | None) -> str:
    """The time left in a period: `12 days`, `5 h`, `9 min`, `over`; whole units, cut."""
    if left is None:
        return UNKNOWN
    if left <= timedelta():
        return "over"
    if left >= 2 * DAY:
        return f"{left // DAY:,} days"
    return f"{left // HOUR} h" if left >= HOUR else f"{left // timedelta(minutes=1)} min"


def age_text(read_at: datetime | None, now: datetime, zone: ZoneInfo) -> str:
    """How old the plans read from Stripe are."""
    if read_at is None:
        return "Plans have not been read from Stripe yet."
    return f"Plans read from Stripe {ago(read_at, now)} ({moment(read_at, zone)} {zone.key})."


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
    "urgency": Sort("Runs out first", lambda limit, now, _: limit.urgency(now)),
    "share": Sort("Share used", lambda limit, _, __: limit.percent_used),
    "used": Sort("Credits used", lambda limit, _, __: limit.used),
    "end": Sort("Period end", lambda limit, _, __: limit.period_end, descending=False),
    "organization": Sort("Organization", lambda limit, _, names: _called(limit, names).casefold(), descending=False),
    "customer": Sort("Customer", lambda limit, _, __: limit.customer_id, descending=False),
}
"""Name in the URL → order."""

DEFAULT_SORT = "urgency"


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
    parts = (_called(limit, names), limit.customer_id or NO_CUSTOMER, plan_text(limit), limit.state)
    return "\n".join(parts).casefold()


def plan_rows(totals: Sequence[PlanTotal]) -> dict[str, list[str]]:
    """The totals by plan as a table; sums are over the customers of which both sides are known."""

    def sums(total: PlanTotal, value: Decimal | int) -> str:
        if not total.known:
            return "" if total.state not in {None, UNKNOWN} else UNKNOWN
        partly = "" if total.known == total.customers else f" (of {total.known:,} known)"
        return f"{exact(value)}{partly}"

    return {
        "Plan": [total.plan or _state(total.state or UNKNOWN) for total in totals],
        "Customers": [count(total.customers) for total in totals],
        "Credits included": [sums(total, total.included) for total in totals],
        "Credits used": [sums(total, total.used) for total in totals],
        "Used": ["" if total.state not in {None, UNKNOWN} else percent_text(total.percent_used) for total in totals],
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
    expected = f"{credits_text(forecast.expected)} ({credits_text(forecast.low)} – {credits_text(forecast.high)})"
    test = forecast.back_test
    error = "not tested" if test.error is None else f"{percent(test.error)} ({count_of(test.origins, 'test')})"
    return expected, runs_out_text(forecast), error


def runs_out_text(forecast: Forecast) -> str:
    """When included credits run out: `already`, `28 Nov 2026 (26 Nov 2026 – 1 Dec 2026)`, `not in this period`."""
    out = forecast.exhaustion
    if out is None:
        return ""
    headline, _ = exhaustion_text(out, forecast.asked.included)
    if out.already or out.early is None:
        return headline
    return f"{headline} ({day_text(out.early)} – {'later' if out.late is None else day_text(out.late)})"


# ── notices ──────────────────────────────────────────────────────────────────────────────────────


def delivery_text(delivery: Delivery, zone: ZoneInfo) -> str:
    """How far a notice got to the webhook, in a few words."""
    last = delivery.last
    why = "" if last is None or last.error is None else f": {last.error}"
    match delivery.state:
        case DeliveryState.DELIVERED:
            return f"delivered {moment(None if last is None else last.at, zone)}"
        case DeliveryState.FAILED:
            return f"failed after {_tries(delivery)}{why}; next try from {moment(delivery.next_at, zone)}"
        case DeliveryState.GIVEN_UP:
            return f"given up after {_tries(delivery)}{why}"
        case DeliveryState.COVERED:
            return "" if last is None else last.error or "covered by a higher one"
        case DeliveryState.WAITING:
            return "waiting to be sent"
        case DeliveryState.NOT_SENT:
            return "no webhook is set"


def _tries(delivery: Delivery) -> str:
    return "1 try" if delivery.tries == 1 else f"{delivery.tries:,} tries"


def reached_rows(found: Sequence[Reached], names: Mapping[str, str], zone: ZoneInfo) -> dict[str, list[str]]:
    """The thresholds that were reached, as a table."""
    return {
        "Organization": [label(one.organization_id, names) for one in found],
        "Customer": [one.customer_id for one in found],
        "Plan": [one.plan or UNKNOWN for one in found],
        "Reached": [f"{one.threshold:,} %" for one in found],
        "Used": [percent_text(percent_of(one.used, one.included)) for one in found],
        "Credits": [f"{exact(one.used)} of {exact(one.included)}" for one in found],
        f"Period ends ({zone.key})": [moment(one.period_end, zone) for one in found],
    }


def notice_rows(found: Sequence[RaisedNotice], names: Mapping[str, str], zone: ZoneInfo) -> dict[str, list[str]]:
    """Notices as a table, with when they were raised, their delivery, and who saw them, if somebody did."""
    notices = [one.notice for one in found]
    rows = {
        **reached_rows(notices, names, zone),
        f"Raised ({zone.key})": [moment(one.raised_at, zone) for one in notices],
        "Webhook": [delivery_text(one.delivery, zone) for one in found],
    }
    if any(not one.is_open for one in notices):
        rows[f"Seen ({zone.key})"] = [f"{one.seen_by}, {moment(one.seen_at, zone)}" for one in notices]
    return rows
