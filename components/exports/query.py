"""The choices of the export panel, read from and written to a URL, and as a request to the export service. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from enum import StrEnum
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from billing_core.access import Role
from billing_core.exports.model import FORMATS, MAY_EXPORT, Dataset, ExportRequest, Format, Grain
from components.shared.periods import Days, Period, days_of
from components.shared.url_values import is_yes, parsed, texts, written
from components.usage_events.query import FACETS, WITHOUT, Facet, Filters, question


class Separator(StrEnum):
    """The separator between the cells of a CSV file; the value is both the label and what the URL has."""

    COMMA = "Comma"
    SEMICOLON = "Semicolon"
    TAB = "Tab"
    PIPE = "Pipe"

    @property
    def character(self) -> str:
        """The separator as the file has it."""
        return {"Comma": ",", "Semicolon": ";", "Tab": "\t", "Pipe": "|"}[self.value]


FOCUS_VERSIONS = ("1.2", "1.4")

_TABLES = frozenset({Format.CSV, Format.XLSX, Format.PARQUET, Format.JSON})


@dataclass(frozen=True, slots=True)
class Choice:
    """Everything chosen in the export panel. `filters` are those of the Usage Events page; an empty `timezone` is the
    reporting one.

    What does not apply to the data set or the format is kept, so that going back to it finds it as it was.
    """

    dataset: Dataset = Dataset.USAGE_EVENTS
    format: Format = Format.CSV
    filters: Filters = field(default_factory=Filters)
    columns: tuple[str, ...] = ()
    grain: Grain = Grain.EVENT
    timezone: str = ""
    separator: Separator = Separator.COMMA
    bom: bool = False
    parquet: bool = False
    user_ids: bool = False
    internal: bool = False
    focus_version: str = FOCUS_VERSIONS[0]

    @classmethod
    def parse(cls, query: Mapping[str, Sequence[str]]) -> Choice:
        """The choices in a URL's parameters; invalid values count as not given, other parameters are ignored."""
        own = {name: read(query[key]) for name, (key, read) in _READ.items() if query.get(key)}
        inner = {name: read(query[key]) for name, (key, read) in _READ_FILTERS.items() if query.get(key)}
        values = tuple((facet.key, chosen) for facet in FACETS if (chosen := texts(query.get(facet.key, ()))))
        filters = Filters(values=values, **{name: value for name, value in inner.items() if value is not None})
        return cls(filters=filters, **{name: value for name, value in own.items() if value is not None})

    def query(self) -> dict[str, list[str]]:
        """The URL parameters of the choices, without those at their defaults."""
        usual = Choice()
        said = {key: (getattr(self, name), getattr(usual, name)) for name, (key, _) in _READ.items()}
        said |= {
            key: (getattr(self.filters, name), getattr(usual.filters, name)) for name, (key, _) in _READ_FILTERS.items()
        }
        changed = {key: written(value) for key, (value, default) in said.items() if value != default}
        return changed | {key: list(values) for key, values in self.filters.values}

    def valued(self, key: str, values: Sequence[str]) -> Choice:
        """The choices with other values of the filter `key`; none removes the filter."""
        kept = {facet: chosen for facet, chosen in self.filters.values if facet != key}
        if values:
            kept[key] = tuple(values)
        ordered = tuple((facet.key, kept[facet.key]) for facet in FACETS if facet.key in kept)
        return replace(self, filters=replace(self.filters, values=ordered))

    @property
    def form(self) -> Format | None:
        """The chosen format if the data set has it, else its first one; `None` for what is always a zip."""
        offered = FORMATS[self.dataset]
        if not offered:
            return None
        return self.format if self.format in offered else offered[0]


def _one_of(offered: Callable[[], Sequence[str]]) -> Callable[[Sequence[str]], str | None]:
    return lambda values: values[-1] if values[-1] in offered() else None


@cache
def timezones() -> tuple[str, ...]:
    """The timezones to choose from: names of places and UTC, without old spellings and fixed offsets."""
    areas = (
        "Africa/",
        "America/",
        "Antarctica/",
        "Arctic/",
        "Asia/",
        "Atlantic/",
        "Australia/",
        "Europe/",
        "Indian/",
        "Pacific/",
    )
    return ("UTC", *sorted(name for name in available_timezones() if name.startswith(areas)))


# Names of the Choice → its name in the URL and how that is read. Some differ from those of the Usage Events page,
# whose widgets are bound to theirs.
_READ: Mapping[str, tuple[str, Callable[[Sequence[str]], Any]]] = {
    "dataset": ("dataset", parsed(Dataset)),
    "format": ("format", parsed(Format)),
    "columns": ("field", texts),
    "grain": ("grain", parsed(Grain)),
    "timezone": ("zone", _one_of(timezones)),
    "separator": ("separator", parsed(Separator)),
    "bom": ("bom", is_yes),
    "parquet": ("parquet", is_yes),
    "user_ids": ("user_ids", is_yes),
    "internal": ("internal", is_yes),
    "focus_version": ("focus", _one_of(lambda: FOCUS_VERSIONS)),
}

_READ_FILTERS: Mapping[str, tuple[str, Callable[[Sequence[str]], Any]]] = {
    "period": ("span", parsed(Period)),
    "first_day": ("from_day", parsed(date.fromisoformat)),
    "last_day": ("to_day", parsed(date.fromisoformat)),
    "without": (WITHOUT, texts),
    "amount_min": ("amount_min", lambda values: values[-1]),
    "amount_max": ("amount_max", lambda values: values[-1]),
    "search": ("find", lambda values: values[-1]),
}

ADDRESS_NAMES = (*(key for key, _ in (*_READ.values(), *_READ_FILTERS.values())), *(facet.key for facet in FACETS))
"""Everything of the URL that is the panel's."""


# ── what applies to what ─────────────────────────────────────────────────────────────────────────

_OF_EVENTS = frozenset({Dataset.USAGE_EVENTS, Dataset.ORGANIZATIONS, Dataset.BUNDLE})
"""Rows made of usage events can be chosen by everything that those can."""

_CHOSEN_BY: Mapping[Dataset, str] = {Dataset.CUSTOMERS: "organization", Dataset.RECONCILIATION: "customer"}
"""Other rows by one filter, or none at all (`billing_core.exports.request` refuses the rest)."""

_APPLIES: Mapping[str, Callable[[Choice], bool]] = {
    "period": lambda c: c.dataset not in {Dataset.CUSTOMERS, Dataset.RATE_CARD},
    "filters": lambda c: c.dataset in _OF_EVENTS or c.dataset in _CHOSEN_BY,
    "event filters": lambda c: c.dataset in _OF_EVENTS,
    "timezone": lambda c: c.dataset not in {Dataset.CUSTOMERS, Dataset.RATE_CARD},
    "grain": lambda c: c.dataset is Dataset.USAGE_EVENTS and c.form in _TABLES,
    "columns": lambda c: c.form in _TABLES,
    "separator": lambda c: c.form is Format.CSV,
    "focus": lambda c: c.form is Format.FOCUS,
}


def has(choice: Choice, option: str) -> bool:
    """Whether an option (a key of `_APPLIES`) means anything for the chosen data set and format."""
    return _APPLIES[option](choice)


def facets_of(choice: Choice) -> tuple[Facet, ...]:
    """The filters with a list of values that apply to the chosen data set."""
    if choice.dataset in _OF_EVENTS:
        return FACETS
    return tuple(facet for facet in FACETS if facet.key == _CHOSEN_BY.get(choice.dataset))


def filters_of(choice: Choice) -> Filters:
    """The filters that apply to the chosen data set, with the period."""
    filters = choice.filters
    if has(choice, "event filters"):
        return filters
    offered = {facet.key for facet in facets_of(choice)}
    values = tuple((key, chosen) for key, chosen in filters.values if key in offered)
    if not has(choice, "period"):
        return Filters(period=Period.ALL_TIME, values=values)
    return Filters(filters.period, filters.first_day, filters.last_day, values)


def may_export(role: Role) -> tuple[Dataset, ...]:
    """The data sets a role may export, as `billing_core` decides it."""
    return tuple(dataset for dataset in Dataset if role in MAY_EXPORT[dataset])


def _zone(choice: Choice, reporting: ZoneInfo) -> ZoneInfo:
    return ZoneInfo(choice.timezone) if choice.timezone and has(choice, "timezone") else reporting


def days(choice: Choice, at: datetime, reporting: ZoneInfo) -> Days:
    """The days of the chosen period at the moment `at`, in its timezone; `BadParameter` if they end before they
    start.
    """
    today = at.astimezone(_zone(choice, reporting)).date()
    return days_of(choice.filters.period, today, choice.filters.first_day, choice.filters.last_day)


def request_of(choice: Choice, *, at: datetime, reporting: ZoneInfo, as_of: int) -> ExportRequest:
    """The choices as a request to the export service, without what does not apply. `as_of` pins the state of the
    ledger.

    Raises
    ------
    BadParameter
        Naming what was typed wrong.
    """
    zone, form = _zone(choice, reporting), choice.form
    is_focus, is_separated = has(choice, "focus"), has(choice, "separator")
    return ExportRequest(
        dataset=choice.dataset,
        format=form,
        params=question(filters_of(choice), at=at, zone=zone, as_of=as_of),
        columns=choice.columns if has(choice, "columns") else (),
        grain=choice.grain if has(choice, "grain") else Grain.EVENT,
        timezone=None if zone.key == reporting.key else zone.key,
        separator=choice.separator.character if is_separated else ",",
        bom=is_separated and choice.bom,
        parquet=is_focus and choice.parquet,
        user_ids=is_focus and choice.user_ids,
        internal=is_focus and choice.internal,
        focus_version=choice.focus_version if is_focus else FOCUS_VERSIONS[0],
    )
