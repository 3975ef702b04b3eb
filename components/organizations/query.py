"""The address (URL parameters) of the Organization Stats page, as a question to the service and as links. Pure.

An `Address` is everything that a shared link carries. Links to other views are made from it, so that a view opened
from another keeps its period, its search and its order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from billing_core.organizations.table import DEFAULT_SORT, SORTS
from billing_core.types import GetUsageEventsParams
from components.shared.periods import Days, Period, days_of, window_of
from components.shared.url_values import is_yes, parsed, texts, written
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


@dataclass(frozen=True, slots=True)
class Address:
    """The state of the page, as its URL has it. Names of fields are names in the URL; what the URL has wrong counts as
    not said.

    `span` is the period, `part` the page of the table, `size` its rows, `by` what it is sorted by, `show` its columns
    (none: the usual ones). `compare` and `only` hold organization ids. `open` is the organization whose own page is
    shown; `open_none` asks for that of the events without one.
    """

    view: OrganizationView = OrganizationView.OVERVIEW
    span: Period = Period.LAST_30_DAYS
    from_day: date | None = None
    to_day: date | None = None
    find: str = ""
    by: str = DEFAULT_SORT
    up: bool = False
    part: int = 1
    size: int = 25
    show: tuple[str, ...] = ()
    compare: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    open: str | None = None
    open_none: bool = False

    @classmethod
    def parse(cls, query: Mapping[str, Sequence[str]]) -> Address:
        """The address from a URL's parameters; other pages' parameters are ignored."""
        said = {name: read(query[name]) for name, read in _READ.items() if query.get(name)}
        return cls(**{name: value for name, value in said.items() if value is not None})

    def query(self) -> dict[str, list[str]]:
        """The URL parameters of this address, without those at their defaults."""
        changed = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }
        return {name: written(value) for name, value in changed.items()}

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


def _number(low: int, high: int) -> Callable[[Sequence[str]], int | None]:
    def read(values: Sequence[str]) -> int | None:
        text = values[-1]
        return int(text) if text.isascii() and text.isdigit() and len(text) < 9 and low <= int(text) <= high else None

    return read


_READ: Mapping[str, Callable[[Sequence[str]], Any]] = {
    "view": parsed(OrganizationView),
    "span": parsed(Period),
    "from_day": parsed(date.fromisoformat),
    "to_day": parsed(date.fromisoformat),
    "find": lambda values: values[-1],
    "by": lambda values: values[-1] if values[-1] in SORTS else None,
    "up": is_yes,
    "part": _number(1, LAST_PART),
    "size": lambda values: size if (size := _number(1, 100)(values)) in PAGE_SIZES else None,
    "show": texts,
    "compare": lambda values: texts(values)[:COMPARED],
    "only": texts,
    "open": lambda values: values[-1] or None,
    "open_none": is_yes,
}


def days(address: Address, today: date) -> Days:
    """The days the address asks for; raises `BadParameter` if they end before they start."""
    return days_of(address.span, today, address.from_day, address.to_day)


def question(address: Address, *, at: datetime, zone: ZoneInfo, as_of: int) -> GetUsageEventsParams:
    """The address's period as parameters for the service. `at` is the present, `as_of` the state of the ledger that all
    figures are of.

    Raises
    ------
    BadParameter
        If the days end before they start.
    """
    start, end = window_of(days(address, at.astimezone(zone).date()), zone)
    return GetUsageEventsParams.parse({"from": start, "to": end, "as_of": as_of})


def events_of(address: Address, organization_id: str | None = None, *, nobody: bool = False) -> dict[str, Any]:
    """URL parameters of the Usage Events page for the same period, of one organization, of nobody's events, or of
    all.
    """
    query: dict[str, Any] = {"period": address.span.value}
    if address.span is Period.CUSTOM:
        query |= {
            name: day.isoformat()
            for name, day in (("first_day", address.from_day), ("last_day", address.to_day))
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


def csv_address(address: Address, params: GetUsageEventsParams) -> str:
    """The URL that downloads the table's rows: the same period, state of the ledger, search and order."""
    order = {"find": address.find, "sort": address.by, "order": "asc" if address.up else "desc"}
    return f"{CSV_PATH}?{csv_query(params)}&{urlencode({name: value for name, value in order.items() if value})}"
