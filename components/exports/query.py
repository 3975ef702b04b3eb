"""The choices of the export panel, read from and written to a URL, and as a request to the export service. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from billing_core.exports.model import FORMATS, TABLES, Dataset, ExportRequest, Format, Grain
from components.shared.periods import Days, Period
from components.shared.url_codec import SPAN_NAMES, Codec, flag, one_of, several
from components.usage_events.query import FACETS, FILTER_VALUES, Facet, Filters, question
from components.usage_events.query import filters_of as filters_alone


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


@dataclass(frozen=True)
class Choice(Filters):
    """Everything chosen in the export panel: the filters of the Usage Events page, and what and how to export. An empty
    `timezone` is the reporting one.

    What does not apply to the data set or the format is kept, so that going back to it finds it as it was.
    """

    dataset: Dataset = Dataset.USAGE_EVENTS
    format: Format = Format.CSV
    columns: tuple[str, ...] = ()
    grain: Grain = Grain.EVENT
    timezone: str = ""
    separator: Separator = Separator.COMMA
    bom: bool = False
    parquet: bool = False
    user_ids: bool = False
    internal: bool = False
    focus_version: str = FOCUS_VERSIONS[0]

    @property
    def form(self) -> Format | None:
        """The chosen format if the data set has it, else its first one; `None` for what is always a zip."""
        offered = FORMATS[self.dataset]
        if not offered:
            return None
        return self.format if self.format in offered else offered[0]


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


CODEC = Codec(
    Choice(),
    {
        **FILTER_VALUES,
        "dataset": one_of(Dataset),
        "format": one_of(Format),
        "columns": several(),
        "grain": one_of(Grain),
        "timezone": one_of(timezones, accepted="a place such as Europe/Berlin, or UTC"),
        "separator": one_of(Separator),
        "bom": flag(),
        "parquet": flag(),
        "user_ids": flag(),
        "internal": flag(),
        "focus_version": one_of(FOCUS_VERSIONS),
    },
    {**SPAN_NAMES, "search": "find", "columns": "field", "timezone": "zone", "focus_version": "focus"},
)


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
    "grain": lambda c: c.dataset is Dataset.USAGE_EVENTS and c.form in TABLES,
    "columns": lambda c: c.form in TABLES,
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
    if has(choice, "event filters"):
        return filters_alone(choice)
    offered = {facet.key: getattr(choice, facet.key) for facet in facets_of(choice)}
    if not has(choice, "period"):
        return Filters(period=Period.ALL_TIME, **offered)
    return Filters(choice.period, choice.first_day, choice.last_day, **offered)


def _zone(choice: Choice, reporting: ZoneInfo) -> ZoneInfo:
    return ZoneInfo(choice.timezone) if choice.timezone and has(choice, "timezone") else reporting


def days(choice: Choice, at: datetime, reporting: ZoneInfo) -> Days:
    """The days of the chosen period at the moment `at`, in its timezone; `BadParameter` if they end before they
    start.
    """
    return choice.days(at.astimezone(_zone(choice, reporting)).date())


def request_of(choice: Choice, *, at: datetime, reporting: ZoneInfo, as_of: int) -> ExportRequest:
    """The choices as a request to the export service, without what does not apply. `as_of` pins the state of the
    ledger.

    Raises BadParameter: naming what was typed wrong.
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
