"""Checks an export request and derives its filters, metadata and file name. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from billing_core.errors import BadParameter
from billing_core.exports.csv_file import checked_separator
from billing_core.exports.focus_schema import FOCUS_VERSIONS
from billing_core.exports.model import FORMATS, OWN_ROWS, SUFFIXES, Dataset, ExportRequest, Format, Grain
from billing_core.ledger.queries import Selection
from billing_core.types import GetUsageEventsParams, utc_text
from billing_core.values.usage_frame import aware_in, zone_named

SCHEMA = "billing/1"

_NOT_FILTERS = frozenset({"from", "to", "sort", "order", "page", "limit", "as_of"})

_FILTERS: Mapping[Dataset, frozenset[str] | None] = {
    Dataset.USAGE_EVENTS: None,
    Dataset.ORGANIZATIONS: None,
    Dataset.BUNDLE: None,
    Dataset.CUSTOMERS: frozenset({"organization"}),
    Dataset.RECONCILIATION: frozenset({"customer"}),
    Dataset.RATE_CARD: frozenset(),
}
"""What rows can be chosen by; `None`: everything that events can. A window where there is no time means nothing."""

_TIMELESS = frozenset({Dataset.CUSTOMERS, Dataset.RATE_CARD})


def checked(request: ExportRequest) -> ExportRequest:
    """The export request, if such a file exists; raises `BadParameter` otherwise.

    Raises BadParameter: naming what does not go together, and what does.
    """
    forms = FORMATS[request.dataset]
    if request.format not in forms and (forms or request.format is not None):
        accepted = "one of " + ", ".join(forms) if forms else "none: a bundle is always a zip"
        raise BadParameter("format", request.format and request.format.value, accepted)
    checked_separator(request.separator)
    if request.focus_version not in FOCUS_VERSIONS:
        raise BadParameter("focus_version", request.focus_version, " or ".join(FOCUS_VERSIONS))
    is_standard = request.format in OWN_ROWS or request.dataset is Dataset.BUNDLE
    if is_standard and request.columns:
        raise BadParameter("columns", ",".join(request.columns), "none: this file always has the same")
    if is_standard and request.grain is Grain.DAY:
        raise BadParameter("grain", request.grain.value, "event: this file has rows of its own")
    zone_of(request, "UTC")
    known = _FILTERS[request.dataset]
    for name, value in _set(request.params).items():
        if known is not None and name not in known:
            named = ", ".join(sorted(known)) or "no filter"
            raise BadParameter(name, value, f"nothing here: rows of {request.dataset} can be chosen by {named}")
    return request


def zone_of(request: ExportRequest, reporting: str) -> ZoneInfo:
    """The timezone that an export cuts days in and reads times without an offset in.

    Raises BadParameter: if there is none of that name.
    """
    return zone_named("timezone", request.timezone or reporting)


def concerning(dataset: Dataset, params: GetUsageEventsParams) -> GetUsageEventsParams:
    """The part of a bundle's filter that applies to one of its data sets."""
    known = _FILTERS[dataset]
    if known is None:
        return params
    kept = known | {"as_of"} | (frozenset() if dataset in _TIMELESS else {"from", "to"})
    values = params.model_dump(by_alias=True, exclude_unset=True)
    return GetUsageEventsParams.model_validate({name: value for name, value in values.items() if name in kept})


def _set(params: GetUsageEventsParams) -> dict[str, Any]:
    """Filters that were asked for."""
    values = params.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {name: value for name, value in values.items() if name not in _NOT_FILTERS}


def meta_of(request: ExportRequest, zone: ZoneInfo, selection: Selection | None) -> dict[str, Any]:
    """The metadata of an export: what it is made of; the same for the same question, whenever it is asked."""
    form = None if request.format is None else request.format.value
    meta: dict[str, Any] = {"schema": SCHEMA, "dataset": request.dataset.value, "format": form}
    if request.dataset is Dataset.USAGE_EVENTS and request.format not in OWN_ROWS - {Format.FOCUS}:
        meta["grain"] = request.grain.value
    params = request.params
    times = {
        name: None if at is None else aware_in(zone, at) for name, at in (("from", params.from_), ("to", params.to))
    }
    scope = None if selection is None or selection.scope.organizations is None else list(selection.scope.organizations)
    meta |= {
        "filter": _set(params),
        "window": {name: None if at is None else utc_text(at) for name, at in times.items()},
        "timezone": zone.key,
        "currency": "USD",
        "only_organizations": scope,
    }
    if request.dataset in _TIMELESS and (params.from_ or params.to):
        meta["note"] = "the window does not choose rows here: they are as they stand"
    if request.columns:
        meta["columns"] = list(request.columns)
    if request.format is Format.FOCUS:
        meta["focus_version"] = request.focus_version
    return meta


def file_name(request: ExportRequest, zone: ZoneInfo) -> str:
    """The file name of an export, such as `usage-events_2026-10_UTC.csv`: data set, period, timezone of its days.

    Letters, digits, `.`, `_` and `-` only.
    """
    name: str = request.dataset.value
    if request.format is Format.DATEV:
        name = f"EXTF_{name}"  # DATEV looks for it
    elif request.format in OWN_ROWS and request.format is not None:
        name += f"-{request.format.value}"
    elif request.dataset is Dataset.USAGE_EVENTS and request.grain is Grain.DAY:
        name += "-by-day"
    if request.dataset not in _TIMELESS:
        period = period_name(request.params.from_, request.params.to, zone)
        name += f"_{period}_{re.sub(r'[^A-Za-z0-9._-]', '-', zone.key)}"
    if request.format is None:
        return name + ".zip"
    return name + (".parquet" if request.format is Format.FOCUS and request.parquet else SUFFIXES[request.format])


def period_name(start: datetime | None, end: datetime | None, zone: ZoneInfo) -> str:
    """A window in a file name: a month, a year, a day or `FIRST_to_LAST`, both included; times where it has no whole
    days.
    """
    first, until = (None if at is None else aware_in(zone, at).astimezone(zone) for at in (start, end))
    if first is None and until is None:
        return "all-time"
    if not all(at is None or at.time() == time() for at in (first, until)):
        begin, finish = (None if at is None else f"{at:%Y-%m-%dT%H%M%S}" for at in (first, until))
        return f"{begin or 'beginning'}_until_{finish or 'now'}"
    begin_day = None if first is None else first.date()
    last_day = None if until is None else until.date() - timedelta(days=1)
    if begin_day is not None and last_day is not None:
        following = last_day + timedelta(days=1)
        if begin_day.day == following.day == 1:
            months = 12 * (following.year - begin_day.year) + following.month - begin_day.month
            if months == 1:
                return f"{begin_day:%Y-%m}"
            if months == 12 and begin_day.month == 1:
                return f"{begin_day:%Y}"
        if begin_day == last_day:
            return f"{begin_day}"
    return f"{begin_day or 'beginning'}_to_{last_day or 'now'}"
