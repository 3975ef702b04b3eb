"""The address (URL parameters) of the Organization Stats page, as a question to the service and as links. Pure.

An `Address` is everything that a shared link carries. Links to other views are made from it, so that a view opened
from another keeps its period, its search and its order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from billing_core.organizations.table import DEFAULT_SORT, SORTS
from billing_core.types import GetUsageEventsParams
from components.shared.comparison import COMPARISON_VALUES, Comparison, ComparisonChoice
from components.shared.periods import Period, PeriodChoice
from components.shared.url_codec import PERIOD_VALUES, SPAN_NAMES, Codec, flag, number, one_of, several, text
from components.usage_events.query import csv_query

PAGE_SIZES = (5, 10, 25, 50, 100)

COMPARED = 6
"""Organizations beside each other at most: more lines than that cannot be told apart."""

CSV_PATH = "/download/organizations.csv"

LAST_PART = 10**6
"""Far behind the last page of any table."""


class OrganizationView(StrEnum):
    """The parts of the Organization Stats page; the value is both the label and what the URL has."""

    OVERVIEW = "Overview"
    CHARTS = "Charts"
    LIMITS = "Plans and limits"
    ANOMALIES = "Anomalies"
    NAMES = "Names and customers"


@dataclass(frozen=True)
class Address(PeriodChoice, ComparisonChoice):
    """The state of the page, as its URL has it. `compare` and `only` hold organization ids; `more` unfolds
    what stands behind the first figures. `open` is the organization
    whose own page is shown; `open_none` asks for that of the events without one.
    """

    view: OrganizationView = OrganizationView.OVERVIEW
    search: str = ""
    sort: str = DEFAULT_SORT
    ascending: bool = False
    page: int = 1
    rows: int = 25
    columns: tuple[str, ...] = ()
    compare: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    more: bool = False
    open: str | None = None
    open_none: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the address asks for one organization's own page."""
        return self.open_none or self.open is not None

    def opening(self, organization_id: str | None) -> Address:
        """The address of one organization's own page (`None`: of the events without one), in the same period."""
        return replace(self, open=organization_id, open_none=organization_id is None)

    def closed(self) -> Address:
        """The address of the page with all organizations, in the same period."""
        return replace(self, open=None, open_none=False)


TABLE_NAMES = {"search": "find", "sort": "by", "ascending": "up", "page": "part", "rows": "size", "columns": "show"}

CODEC = Codec(
    Address(),
    {
        "view": one_of(OrganizationView),
        **PERIOD_VALUES,
        **COMPARISON_VALUES,
        "search": text(),
        "sort": one_of(tuple(SORTS)),
        "ascending": flag(),
        "page": number(1, LAST_PART),
        "rows": one_of(PAGE_SIZES),
        "columns": several(),
        "compare": several(COMPARED),
        "only": several(),
        "more": flag(),
        "open": text(),
        "open_none": flag(),
    },
    {**SPAN_NAMES, **TABLE_NAMES},
)


def question(address: Address, *, at: datetime, zone: ZoneInfo, as_of: int) -> GetUsageEventsParams:
    """The address's period as parameters for the service. `at` is the present, `as_of` the state of the ledger that all
    figures are of.

    Raises
    ------
    BadParameter
        If the days end before they start.
    """
    start, end = address.window(at, zone)
    return GetUsageEventsParams.parse({"from": start, "to": end, "as_of": as_of})


def events_of(address: Address, organization_id: str | None = None, *, nobody: bool = False) -> dict[str, Any]:
    """URL parameters of the Usage Events page for the same period, of one organization, of nobody's events, or of
    all.
    """
    query: dict[str, Any] = {"period": address.period.value}
    if address.period is Period.CUSTOM:
        query |= {
            name: day.isoformat()
            for name, day in (("first_day", address.first_day), ("last_day", address.last_day))
            if day is not None
        }
    if organization_id is not None:
        query["organization"] = organization_id
    if nobody:
        query["without"] = "organization"
    return query


def of_day(query: Mapping[str, Any], day: str) -> dict[str, Any]:
    """URL parameters of the Usage Events page limited to one day (ISO 8601)."""
    return {**query, "period": Period.CUSTOM.value, "first_day": day, "last_day": day}


def csv_address(address: Address, params: GetUsageEventsParams, compare: str | None) -> str:
    """The URL that downloads the table's rows: the same period, comparison, state of the ledger, search and order."""
    order = {
        "find": address.search,
        "sort": address.sort,
        "order": "asc" if address.ascending else "desc",
        "compare": compare or Comparison.NOTHING.value,
    }
    return f"{CSV_PATH}?{csv_query(params)}&{urlencode({name: value for name, value in order.items() if value})}"
