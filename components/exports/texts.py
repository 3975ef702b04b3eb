"""Texts of the export panel. Pure: values in, plain text out; escape it before it becomes Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from billing_core.exports.model import OWN_ROWS, Dataset, ExportPreview, ExportProgress, ExportResult, Format, Grain
from billing_core.values.counts import count_of
from components.shared.formats import UNKNOWN, count, exact, rounded, short_usd

DAYS_IN_ZONE = "Days begin and end at midnight in this timezone."
KEPT = "Kept for an hour."
MANIFEST_NOTE = "Rows, totals, filter, timezone, rate card versions and SHA-256 as JSON."
TOTALS_EQUAL = "✓ The file's totals equal the preview's."
METADATA_NOTE = "Describes the columns, as FOCUS requires."
BYTE_ORDER_MARK = "Three bytes at the start that tell Excel the file is UTF-8; leave them out for other programs."
BUNDLE_NOTE = "The files of the bundle. Totals are those of its usage events."
COLUMN_ORDER = "In this order. None chosen: all of them."
RUNNING = "An export is running."
AS_PARQUET = "Typed columns instead of CSV."
PERSONAL_DATA = "Personal data: include only if the recipient needs it."

Figures = Mapping[str, Decimal | int | None]

DATASET_WORDS: Mapping[Dataset, str] = {
    Dataset.USAGE_EVENTS: "Usage events",
    Dataset.ORGANIZATIONS: "Organizations",
    Dataset.CUSTOMERS: "Customers and map",
    Dataset.RECONCILIATION: "Reconciliation",
    Dataset.RATE_CARD: "Rate cards",
    Dataset.BUNDLE: "Everything (bundle)",
}

DATASET_NOTES: Mapping[Dataset, str] = {
    Dataset.USAGE_EVENTS: "One row per usage event, with every published field.",
    Dataset.ORGANIZATIONS: "One row per organization: events, chats, messages, users, tokens, credits and money.",
    Dataset.CUSTOMERS: "Each organization's name and billed customer, in the format the import reads.",
    Dataset.RECONCILIATION: (
        "Langfuse, ledger and Stripe per customer and UTC day. Over all time: the newest reconciliation. "
        "A period that has not been reconciled yet is reconciled first, which takes a while."
    ),
    Dataset.RATE_CARD: "One row per rate card, with its plans, in the format the import reads.",
    Dataset.BUNDLE: "A zip of all of these with a manifest that names every file's SHA-256.",
}

BY_DAY = "One row per day and organization, customer, chatflow, environment, models, key, card and status, with sums."

FORMAT_WORDS: Mapping[Format, str] = {
    Format.CSV: "CSV",
    Format.CSV_EUROPE: "CSV for Excel (Europe)",
    Format.XLSX: "Excel (XLSX)",
    Format.PARQUET: "Parquet",
    Format.JSON: "JSON",
    Format.FOCUS: "FOCUS",
    Format.JOURNAL: "Journal (CSV)",
    Format.DATEV: "DATEV (EXTF)",
    Format.XERO: "Xero (CSV)",
    Format.QUICKBOOKS: "QuickBooks (CSV)",
}

_BOOKINGS = "Bookings in cents: per month what each customer owes, what earned it, and one line for rounding."

FORMAT_NOTES: Mapping[Format, str] = {
    Format.CSV: "UTF-8 text. Cells that a spreadsheet would run as a formula start with an apostrophe.",
    Format.CSV_EUROPE: "Semicolons, decimal commas, and a local time beside each UTC time. Can be imported again.",
    Format.XLSX: "Sheets with the rows, the totals and details of the export; times in UTC; up to 1,048,575 rows.",
    Format.PARQUET: "Typed columns: exact decimals, times in UTC.",
    Format.JSON: "Rows as the command line and the HTTP API return them, with details of the export.",
    Format.FOCUS: "FinOps cost and usage records: one row per event and kind of credits, with a metadata file.",
    Format.JOURNAL: "For accounting: period, account, organization, debit, credit and reference, in US dollars.",
    Format.DATEV: f"{_BOOKINGS} As DATEV's Buchungsstapel; the clearing account is at 0 after each month.",
    Format.XERO: f"{_BOOKINGS} As Xero's template for manual journals, which takes 300 lines at a time.",
    Format.QUICKBOOKS: f"{_BOOKINGS} As QuickBooks Online imports journal entries, with account names.",
}

GRAIN_WORDS: Mapping[Grain, str] = {Grain.EVENT: "Usage event", Grain.DAY: "Day"}

_FIGURES: tuple[tuple[str, str], ...] = (
    ("rows", "Rows"),
    ("events", "Events"),
    ("credits_total", "Credits"),
    ("credits_ai_tokens", "AI token credits"),
    ("credits_compute", "Compute credits"),
    ("credits_storage", "Storage credits"),
    ("amount_usd", "Amount (USD)"),
    ("debit_usd", "Debit (USD)"),
    ("credit_usd", "Credit (USD)"),
    ("receivable_usd", "Receivable (USD)"),
    ("rounding_usd", "Rounding (USD)"),
    ("written_off_usd", "Written off (USD)"),
    ("without_customer_usd", "Left out: no customer (USD)"),
    ("cost_usd", "Langfuse cost (USD)"),
    ("tokens_total", "Tokens"),
    ("tokens_in", "Tokens in"),
    ("tokens_out", "Tokens out"),
)
"""Totals people look at, in this order, and what they are called; others keep their own name and come last."""

EARLIER_FILE = "A file of other choices: {name}"

KIB = 1024

WIDE_TABLE = 100
"""DATEV's files have more columns than this, nearly all of them empty."""

CHARACTER_PIXELS, MARGIN_PIXELS, WIDEST_PIXELS = 8, 24, 400
"""Of a column of the preview."""


def note(dataset: Dataset, form: Format | None, grain: Grain) -> str:
    """What the chosen file contains and what kind of file it is."""
    if form is None or form in OWN_ROWS:
        rows = DATASET_NOTES[dataset] if form is None else ""
    elif dataset is Dataset.USAGE_EVENTS and grain is Grain.DAY:
        rows = BY_DAY
    else:
        rows = DATASET_NOTES[dataset]
    return f"{rows} {'' if form is None else FORMAT_NOTES[form]}".strip()


def nothing_text(dataset: Dataset) -> str:
    """Why there is nothing to export, and what to do."""
    if dataset is Dataset.RECONCILIATION:
        return "Nothing to export: nobody had credits in that period."
    if dataset is Dataset.CUSTOMERS:
        return "Nothing to export: no organization has a name or a customer of its own yet."
    if dataset is Dataset.RATE_CARD:
        return "Nothing to export: no rate card is known."
    return "No events match. Widen the period or remove filters."


def size_text(size_bytes: int) -> str:
    """A size in bytes for people: `512 bytes`, `1.5 KiB`, `12 MiB`: three digits at most, of 1,024 bytes each."""
    if size_bytes < KIB:
        return count_of(size_bytes, "byte")
    size, units = Decimal(size_bytes) / KIB, ["GiB", "MiB", "KiB"]
    while size >= KIB - Decimal("0.5") and len(units) > 1:  # 1,023.9 KiB is 1 MiB
        size, _ = size / KIB, units.pop()
    digits = size.quantize(Decimal("0.1") if size < 100 else Decimal(1))
    return f"{exact(digits)} {units[-1]}"


def totals_text(rows: int, totals: Figures) -> str:
    """The totals of an export: `1,234 rows · 5,678.9 credits · $0.23`, as far as the data set has such figures.

    Of bookings debit and credit, and what they leave out.
    """
    parts = [count_of(rows, "row")]
    if isinstance(debit := totals.get("debit_usd"), Decimal) and isinstance(credit := totals["credit_usd"], Decimal):
        parts.append(
            f"debit {short_usd(debit)} = credit {short_usd(credit)}" if debit == credit else "debit and credit differ"
        )
        if (left_out := totals.get("without_customer_usd")) and isinstance(left_out, Decimal):
            parts.append(f"{short_usd(left_out)} left out: no customer")
        return " · ".join(parts)
    if "credits_total" in totals:
        parts.append(f"{rounded(totals['credits_total'])} credits")
    amount = totals.get("amount_usd")
    if isinstance(amount, Decimal):
        parts.append(short_usd(amount))
    return " · ".join(parts)


def preview_rows(preview: ExportPreview) -> dict[str, list[str]]:
    """The first rows of a preview, by column; an empty cell stays empty. Of very many columns those with a value."""
    found = {
        name: ["" if row[position] is None else str(row[position]) for row in preview.rows]
        for position, name in enumerate(preview.columns)
    }
    return found if len(found) < WIDE_TABLE else {name: cells for name, cells in found.items() if any(cells)}


def column_pixels(name: str, cells: Sequence[str]) -> int:
    """The width of a column in pixels for its longest text, within bounds: a figure cut off on its left would be
    another figure.
    """
    longest = max(map(len, (name, *cells)))
    return min(WIDEST_PIXELS, MARGIN_PIXELS + CHARACTER_PIXELS * longest)


def _figure(value: Decimal | int | None) -> str:
    if value is None:
        return UNKNOWN
    return count(value) if isinstance(value, int) else exact(value)


def _named(totals: Figures) -> Sequence[tuple[str, str]]:
    known = dict(_FIGURES)
    ordered = [(name, label) for name, label in _FIGURES if name in totals]
    return [*ordered, *((name, name.replace("_", " ").capitalize()) for name in totals if name not in known)]


def compared_rows(preview: ExportPreview | None, result: ExportResult | None) -> dict[str, list[str]]:
    """A table of totals of the preview and of the file beside each other, whichever there are."""
    sides: dict[str, Figures] = {}
    if preview is not None:
        sides["Preview"] = {"rows": preview.total_rows, **preview.totals}
    if result is not None:
        sides["File"] = {"rows": result.rows, **result.totals}
    names = _named({name: None for side in sides.values() for name in side})
    cells = {"Total": [label for _, label in names]}
    return cells | {
        side: [_figure(figures[name]) if name in figures else "" for name, _ in names]
        for side, figures in sides.items()
    }


def differing(preview: ExportPreview, result: ExportResult) -> list[str]:
    """Names of totals in which the file differs from its preview; there should be none."""
    before = {"rows": preview.total_rows, **preview.totals}
    after = {"rows": result.rows, **result.totals}
    return [label for name, label in _named(before) if name in after and before[name] != after[name]]


def progress_fraction(progress: ExportProgress) -> float:
    """The part of the rows written, 0 to 1; 0 while the number of all rows is unknown."""
    return min(1.0, progress.rows / progress.total) if progress.total else 0.0


def progress_text(progress: ExportProgress) -> str:
    """The progress of an export: `Writing: 120,000 of 1,234,567 rows`."""
    doing = progress.doing[:1].upper() + progress.doing[1:]
    if progress.total is None:
        return f"{doing}: {count_of(progress.rows, 'row')}" if progress.rows else doing
    return f"{doing}: {progress.rows:,} of {count_of(progress.total, 'row')}"


def result_text(result: ExportResult) -> str:
    """The result of an export: `usage-events.csv is ready: 1,234 rows, 1.5 MiB`."""
    return f"{result.name} is ready: {count_of(result.rows, 'row')}, {size_text(result.bytes)}"
