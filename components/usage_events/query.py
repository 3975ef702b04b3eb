"""The filters of the Usage Events page, as a question to the service and as URL parameters. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from billing_core.types import GetUsageEventsParams, plain_decimal, utc_text
from components.shared.periods import Days, Period, days_of, window_of


@dataclass(frozen=True, slots=True)
class Facet:
    """A filter with a list of values: its name in the URL and in `GetUsageEventsParams`, and its label."""

    key: str
    label: str


FACETS = (
    Facet("organization", "Organization"),
    Facet("customer", "Customer"),
    Facet("user", "User"),
    Facet("chatflow", "Chatflow"),
    Facet("model", "Model"),
    Facet("environment", "Environment"),
    Facet("status", "Sync status"),
)

WITHOUT = "without"
"""The filter for what events lack: its name in the URL and in `GetUsageEventsParams`."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Everything chosen in the filter bar. `amount_min` and `amount_max` are US dollars as typed."""

    period: Period = Period.LAST_30_DAYS
    first_day: date | None = None
    last_day: date | None = None
    values: tuple[tuple[str, tuple[str, ...]], ...] = ()
    without: tuple[str, ...] = ()
    amount_min: str = ""
    amount_max: str = ""
    search: str = ""


@dataclass(frozen=True, slots=True)
class Paging:
    """Page, page size and order of the table; the defaults are the newest 25."""

    sort: str = "timestamp"
    order: str = "desc"
    page: int = 1
    limit: int = 25


@dataclass(frozen=True, slots=True)
class Chip:
    """One active filter as shown: its text and which value of which widget it removes."""

    text: str
    key: str
    value: str | None = None


def days(filters: Filters, today: date) -> Days:
    """The days the filters ask for."""
    return days_of(filters.period, today, filters.first_day, filters.last_day)


def question(
    filters: Filters, *, at: datetime, zone: ZoneInfo, as_of: int, paging: Paging | None = None
) -> GetUsageEventsParams:
    """The filters as parameters. `at` is the present, `as_of` the booking number the view is pinned to.

    Raises
    ------
    BadParameter
        Naming what was typed wrong.
    """
    start, end = window_of(days(filters, at.astimezone(zone).date()), zone)
    values: dict[str, Any] = {
        "from": start,
        "to": end,
        **dict(filters.values),
        WITHOUT: filters.without,
        "amount_min": _amount(filters.amount_min),
        "amount_max": _amount(filters.amount_max),
        "as_of": as_of,
    }
    if filters.search.strip():
        values["search"] = filters.search.strip()
    if paging is not None:
        values |= {"sort": paging.sort, "order": paging.order, "page": paging.page, "limit": paging.limit}
    return GetUsageEventsParams.parse(values)


def _amount(text: str) -> str | None:
    """As typed, without the signs people put around dollars."""
    return text.strip().removeprefix("$").replace(",", "") or None


def chips(filters: Filters) -> list[Chip]:
    """Every active filter but the period, which is always in sight."""
    labels = {facet.key: facet.label for facet in FACETS}
    found = [Chip(f"{labels[key]}: {value}", key, value) for key, values in filters.values for value in values]
    found += [Chip(f"Without {name}", WITHOUT, name) for name in filters.without]
    if filters.amount_min.strip():
        found.append(Chip(f"Amount from ${filters.amount_min.strip().removeprefix('$')}", "amount_min"))
    if filters.amount_max.strip():
        found.append(Chip(f"Amount to ${filters.amount_max.strip().removeprefix('$')}", "amount_max"))
    if filters.search.strip():
        found.append(Chip(f"Search: {filters.search.strip()}", "search"))
    return found


def csv_query(params: GetUsageEventsParams) -> str:
    """The query string that downloads exactly the events of `params`: whole answer, same state of the ledger."""
    pairs: list[tuple[str, str]] = []
    for name, time in (("from", params.from_), ("to", params.to)):
        if time is not None:
            pairs.append((name, utc_text(time)))
    for facet in FACETS:
        pairs += [(facet.key, str(value)) for value in getattr(params, facet.key)]
    pairs += [(WITHOUT, str(attribute)) for attribute in params.without]
    for name, amount in (("amount_min", params.amount_min), ("amount_max", params.amount_max)):
        if amount is not None:
            pairs.append((name, plain_decimal(amount)))
    if params.search is not None:
        pairs.append(("search", params.search))
    if params.as_of is not None:
        pairs.append(("as_of", str(params.as_of)))
    return urlencode(pairs)
