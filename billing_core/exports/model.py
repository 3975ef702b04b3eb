"""The data classes of exports: request, progress, preview, result. Light: pages import it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from billing_core.access import Principal, Role
from billing_core.errors import BillingError
from billing_core.types import Credits, GetUsageEventsParams, plain_decimal


class Cancelled(BillingError):
    """An export was stopped by somebody; nothing of it is left."""


class Dataset(StrEnum):
    """A data set that may be exported (CONTRACT section 3)."""

    USAGE_EVENTS = "usage-events"
    ORGANIZATIONS = "organizations"
    RECONCILIATION = "reconciliation"
    RATE_CARD = "rate-card"
    CUSTOMERS = "customers"
    BUNDLE = "bundle"


class Format(StrEnum):
    """A file format of exports. From `focus` on they are made of usage events only; a bundle is always a zip."""

    CSV = "csv"
    CSV_EUROPE = "csv-europe"
    XLSX = "xlsx"
    PARQUET = "parquet"
    JSON = "json"
    FOCUS = "focus"
    JOURNAL = "journal"
    DATEV = "datev"
    XERO = "xero"
    QUICKBOOKS = "quickbooks"


BOOKKEEPING = frozenset({Format.DATEV, Format.XERO, Format.QUICKBOOKS})
"""Forms that bookkeeping software imports: amounts in cents, debit equal to credit."""

OWN_ROWS = frozenset({Format.FOCUS, Format.JOURNAL, *BOOKKEEPING})
"""Forms that make rows of their own out of usage events."""


class Grain(StrEnum):
    """What a row of exported usage is: one event, or one day of the timezone per combination of attributes."""

    EVENT = "event"
    DAY = "day"


TABLES = (Format.CSV, Format.CSV_EUROPE, Format.XLSX, Format.PARQUET, Format.JSON)
"""Forms that hold the rows of a data set as they are."""

FORMATS: Mapping[Dataset, tuple[Format, ...]] = {
    Dataset.USAGE_EVENTS: tuple(Format),
    **dict.fromkeys((Dataset.ORGANIZATIONS, Dataset.RECONCILIATION, Dataset.RATE_CARD, Dataset.CUSTOMERS), TABLES),
    Dataset.BUNDLE: (),
}
"""The forms each data set has."""

MAY_EXPORT: Mapping[Dataset, frozenset[Role]] = {
    Dataset.USAGE_EVENTS: frozenset(Role),
    **dict.fromkeys(
        (Dataset.ORGANIZATIONS, Dataset.RECONCILIATION, Dataset.RATE_CARD, Dataset.CUSTOMERS, Dataset.BUNDLE),
        frozenset({Role.FINANCE, Role.ADMIN}),
    ),
}
"""Which role may export what; rows outside a principal's organizations never leave."""

OUR_COSTS = "this file has our costs or margins"

OF_EVERYTHING: Mapping[Dataset, str] = {
    Dataset.RECONCILIATION: "this file cannot be cut by organization",
    Dataset.RATE_CARD: OUR_COSTS,
}
"""Data sets that are not for who is limited to organizations, and why."""


def may_export(principal: Principal) -> tuple[Dataset, ...]:
    """The data sets that a principal may export."""
    limited = principal.organizations is not None
    return tuple(
        dataset
        for dataset in Dataset
        if principal.role in MAY_EXPORT[dataset] and not (limited and dataset in OF_EVERYTHING)
    )


SUFFIXES: Mapping[Format, str] = {
    Format.CSV: ".csv",
    Format.CSV_EUROPE: ".csv",
    Format.XLSX: ".xlsx",
    Format.PARQUET: ".parquet",
    Format.JSON: ".json",
    Format.FOCUS: ".csv",
    Format.JOURNAL: ".csv",
    **dict.fromkeys(BOOKKEEPING, ".csv"),
}


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What a person asks to export: data set, format, filters, grain.

    params: Window and filters as `events` takes them; sort and page do not matter, a file holds every row.
    columns: Names to keep, in this order; empty: all.
    timezone: IANA name; cuts days and reads times without an offset. `None`: the reporting timezone, or of exactly a
        closed month the one it was closed in.
    separator, bom: Of CSV, for spreadsheet users.
    parquet: Whether FOCUS is written as Parquet instead of CSV.
    user_ids, internal: FOCUS: whether user and session ids (personal data), and our cost and margin, are in it.
    focus_version: `1.2` or `1.4`.
    """

    dataset: Dataset
    format: Format | None
    params: GetUsageEventsParams = field(default_factory=GetUsageEventsParams)
    columns: tuple[str, ...] = ()
    grain: Grain = Grain.EVENT
    timezone: str | None = None
    separator: str = ","
    bom: bool = False
    parquet: bool = False
    user_ids: bool = False
    internal: bool = False
    focus_version: str = "1.2"


@dataclass(frozen=True, slots=True)
class ExportProgress:
    """The progress of an export: rows written of all (`None`: not known), and what is done now."""

    rows: int
    total: int | None
    doing: str


@dataclass(frozen=True, slots=True)
class ExportResult:
    """The result of a written export: `meta` says what it is made of, `totals` are exact sums over its rows."""

    name: str
    rows: int
    bytes: int
    sha256: str
    totals: Mapping[str, Decimal | int | None]
    meta: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The published document (CONTRACT section 3, `export`), and the manifest written beside the file.

        Credits are there under their flat names and, as `events` has them, together.
        """
        totals: dict[str, Any] = {
            name: plain_decimal(value) if isinstance(value, Decimal) else value for name, value in self.totals.items()
        }
        if "credits_total" in totals:
            totals["credits"] = {part: totals[f"credits_{part}"] for part in Credits.model_fields}
        return {
            "file": self.name,
            "rows": self.rows,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "totals": totals,
            **self.meta,
        }


@dataclass(frozen=True, slots=True)
class ExportPreview:
    """A preview of an export: columns, the first rows as text (`None`: empty cell), the count of all rows, totals.

    `as_of` pins the state of the ledger: an export asked with it holds exactly what the preview counted.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    total_rows: int
    totals: Mapping[str, Decimal | int | None]
    as_of: int
    made_at: datetime
