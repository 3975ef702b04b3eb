"""Files of bookings as DATEV (EXTF), Xero and QuickBooks import them, by the column lists these publish. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from billing_core.errors import BadParameter
from billing_core.exports.bookkeeping import Bookings, Posting
from billing_core.exports.model import Format
from billing_core.values.csv_cells import neutralised, quoted
from billing_core.values.journal_accounts import DatevClient, JournalAccounts

CURRENCY = "USD"
END = "\r\n"


@dataclass(frozen=True, slots=True)
class BookkeepingSettings:
    """How an accounting program is set up: its accounts, its name for the tax of our revenue, the client of DATEV.

    tax: DATEV's tax key (BU-Schlüssel), or the name of a tax rate in Xero; empty: none.
    """

    accounts: JournalAccounts
    tax: str
    datev: DatevClient


Row = tuple[str, ...]


# ── Xero ─────────────────────────────────────────────────────────────────────────────────────────

XERO_COLUMNS = (
    "*Narration",
    "*Date",
    "Description",
    "*AccountCode",
    "*TaxRate",
    "*Amount",
    "TrackingName1",
    "TrackingOption1",
    "TrackingName2",
    "TrackingOption2",
)
"""Xero's template for manual journals; an amount above 0 is a debit. Dates are day/month/year."""

NO_TAX = "Tax Exempt"
"""Xero's own name of the rate for what is not taxed; every organization there has it."""


def xero_rows(bookings: Bookings, settings: BookkeepingSettings) -> Iterator[Row]:
    """The rows of a Xero file: one manual journal per month."""
    for one in bookings.postings:
        yield (
            f"Usage {one.period} ({CURRENCY})",
            f"{one.posted_on:%d/%m/%Y}",
            one.text,
            settings.accounts.number(one.entry),
            settings.tax or NO_TAX,
            _plain(one.amount),
            *[""] * 4,
        )


# ── QuickBooks ───────────────────────────────────────────────────────────────────────────────────

QUICKBOOKS_COLUMNS = (
    "JournalNo",
    "JournalDate",
    "Currency",
    "Memo",
    "AccountName",
    "Debits",
    "Credits",
    "Description",
    "Name",
    "Location",
    "Class",
)
"""QuickBooks Online's columns for journal entries; it knows accounts by name. Dates are month/day/year."""


def quickbooks_rows(bookings: Bookings, settings: BookkeepingSettings) -> Iterator[Row]:
    """The rows of a QuickBooks file: one journal entry per month."""
    for one in bookings.postings:
        debit, credit = (_plain(one.amount), "") if one.amount > 0 else ("", _plain(-one.amount))
        yield (
            f"usage-{one.period}",
            f"{one.posted_on:%m/%d/%Y}",
            CURRENCY,
            f"Usage {one.period}",
            settings.accounts.name(one.entry),
            debit,
            credit,
            one.text,
            one.customer_id or "",
            "",
            "",
        )


# ── DATEV ────────────────────────────────────────────────────────────────────────────────────────

DATEV_ENCODING = "cp1252"

DATEV_COLUMNS: tuple[str, ...] = (
    "Umsatz (ohne Soll/Haben-Kz)",
    "Soll/Haben-Kennzeichen",
    "WKZ Umsatz",
    "Kurs",
    "Basis-Umsatz",
    "WKZ Basis-Umsatz",
    "Konto",
    "Gegenkonto (ohne BU-Schlüssel)",
    "BU-Schlüssel",
    "Belegdatum",
    "Belegfeld 1",
    "Belegfeld 2",
    "Skonto",
    "Buchungstext",
    "Postensperre",
    "Diverse Adressnummer",
    "Geschäftspartnerbank",
    "Sachverhalt",
    "Zinssperre",
    "Beleglink",
    *(f"Beleginfo - {what} {number}" for number in range(1, 9) for what in ("Art", "Inhalt")),
    "KOST1 - Kostenstelle",
    "KOST2 - Kostenstelle",
    "Kost-Menge",
    "EU-Land u. UStID (Bestimmung)",
    "EU-Steuersatz (Bestimmung)",
    "Abw. Versteuerungsart",
    "Sachverhalt L+L",
    "Funktionsergänzung L+L",
    "BU 49 Hauptfunktionstyp",
    "BU 49 Hauptfunktionsnummer",
    "BU 49 Funktionsergänzung",
    *(f"Zusatzinformation{what} {number}" for number in range(1, 21) for what in (" - Art", "- Inhalt")),
    "Stück",
    "Gewicht",
    "Zahlweise",
    "Forderungsart",
    "Veranlagungsjahr",
    "Zugeordnete Fälligkeit",
    "Skontotyp",
    "Auftragsnummer",
    "Buchungstyp",
    "USt-Schlüssel (Anzahlungen)",
    "EU-Land (Anzahlungen)",
    "Sachverhalt L+L (Anzahlungen)",
    "EU-Steuersatz (Anzahlungen)",
    "Erlöskonto (Anzahlungen)",
    "Herkunft-Kz",
    "Buchungs GUID",
    "KOST-Datum",
    "SEPA-Mandatsreferenz",
    "Skontosperre",
    "Gesellschaftername",
    "Beteiligtennummer",
    "Identifikationsnummer",
    "Zeichnernummer",
    "Postensperre bis",
    "Bezeichnung SoBil-Sachverhalt",
    "Kennzeichen SoBil-Buchung",
    "Festschreibung",
    "Leistungsdatum",
    "Datum Zuord. Steuerperiode",
    "Fälligkeit",
    "Generalumkehr (GU)",
    "Steuersatz",
    "Land",
    "Abrechnungsreferenz",
    "BVV-Position",
    "EU-Land u. UStID (Ursprung)",
    "EU-Steuersatz (Ursprung)",
    "Abw. Skontokonto",
)
"""The 125 columns of a Buchungsstapel, version 13 of the format with header version 700."""

_LONGEST_TEXT, _LONGEST_REFERENCE, _LONGEST_NAME = 60, 36, 30
_NOT_IN_A_REFERENCE = re.compile(r"[^A-Za-z0-9$&%*+\-/]")
_TEXT_COLUMNS = frozenset({"Soll/Haben-Kennzeichen", "WKZ Umsatz", "BU-Schlüssel", "Belegfeld 1", "Buchungstext"})


def datev_rows(bookings: Bookings, settings: BookkeepingSettings) -> Iterator[Row]:
    """The rows of a DATEV file. A booking there has two accounts: each side is booked against the clearing account,
    which is at 0 after each month.

    Raises BadParameter: if an account is none of the client's; if usage is of more than one fiscal year.
    """
    accounts, client = settings.accounts, settings.datev
    clearing = _datev_account(accounts, "clearing", client)
    years = {_fiscal_year(one.posted_on, client) for one in bookings.postings}
    if len(years) > 1:
        first, last = min(years), max(years)
        raise BadParameter("from", f"usage of fiscal years from {first} and {last}", "one fiscal year per DATEV file")
    for one in bookings.postings:
        filled = {
            "Umsatz (ohne Soll/Haben-Kz)": _plain(abs(one.amount)).replace(".", ","),
            "Soll/Haben-Kennzeichen": "S" if one.amount > 0 else "H",
            "WKZ Umsatz": CURRENCY,
            "Konto": _datev_account(accounts, one.entry, client),
            "Gegenkonto (ohne BU-Schlüssel)": clearing,
            "BU-Schlüssel": settings.tax if one.entry in {"ai_tokens", "compute", "storage"} else "",
            "Belegdatum": f"{one.posted_on:%d%m}",
            "Belegfeld 1": _NOT_IN_A_REFERENCE.sub("-", one.reference)[:_LONGEST_REFERENCE],
            "Buchungstext": one.text[:_LONGEST_TEXT],
            "Festschreibung": "0",
            "Leistungsdatum": f"{one.posted_on:%d%m%Y}",
        }
        yield tuple(filled.get(name, "") for name in DATEV_COLUMNS)


def _fiscal_year(day: date, client: DatevClient) -> date:
    """The first day of the client's fiscal year that a day is in."""
    year = day.year if day.month >= client.fiscal_year_month else day.year - 1
    return date(year, client.fiscal_year_month, 1)


def _datev_account(accounts: JournalAccounts, entry: str, client: DatevClient) -> str:
    """The number of an account; those of customers may have one digit more than others."""
    number = accounts.number(entry)
    longest = client.account_length + (entry == "receivable")
    if not (number.isascii() and number.isdigit() and len(number) <= longest):
        raise BadParameter(
            "BILLING_JOURNAL_ACCOUNTS", f"{entry}={number}", f"an account number of up to {longest} digits for DATEV"
        )
    if entry == "receivable" and number == accounts.number("clearing"):
        raise BadParameter("BILLING_JOURNAL_ACCOUNTS", f"receivable={number}", "another account than clearing")
    return number


def datev_header(rows: Sequence[Posting], client: DatevClient, name: str) -> str:
    """The first line of a DATEV file: what it is, whose, and of which days. No clock is in it: "created" is the last
    day.
    """
    days = [one.posted_on for one in rows]
    last = max(days, default=date(2000, 1, 1))
    first = min(days, default=last).replace(day=1)
    fields = [
        '"EXTF"',
        "700",
        "21",
        '"Buchungsstapel"',
        "13",
        f"{last:%Y%m%d}000000000",
        "",
        '"RE"',
        '""',
        '""',
        str(client.consultant),
        str(client.client),
        f"{_fiscal_year(first, client):%Y%m%d}",
        str(client.account_length),
        f"{first:%Y%m%d}",
        f"{last:%Y%m%d}",
        f'"{name[:_LONGEST_NAME]}"',
        '""',
        "1",
        "0",
        "0",
        f'"{CURRENCY}"',
        "",
        '""',
        "",
        "",
        '""',
        "",
        "",
        '""',
        '""',
    ]
    return ";".join(fields)


def datev_bytes(header: str, rows: Sequence[Row]) -> bytes:
    """A DATEV file: Windows-1252, semicolons, texts in quotation marks. What Windows-1252 has no letter for is `?`."""
    is_text = [name in _TEXT_COLUMNS for name in DATEV_COLUMNS]

    def line(row: Row) -> str:
        cells = zip(row, is_text, strict=True)
        return ";".join('"' + cell.replace('"', '""') + '"' if quote and cell else cell for cell, quote in cells)

    lines = [header, ";".join(DATEV_COLUMNS), *map(line, rows)]
    return "".join(text + END for text in lines).encode(DATEV_ENCODING, "replace")


# ── all of them ──────────────────────────────────────────────────────────────────────────────────


def _plain(amount: Decimal) -> str:
    return f"{amount:.2f}"


def csv_text(names: Row, rows: Sequence[Row]) -> bytes:
    """A CSV file of texts and figures; no text begins like a formula."""

    def cell(text: str) -> str:
        is_figure = bool(re.fullmatch(r"-?[0-9]+\.[0-9]{2}", text))
        return quoted(text if is_figure else neutralised(text), ",")

    return "".join(",".join(map(cell, row)) + END for row in (names, *rows)).encode()


ROWS: dict[Format, tuple[Row, Callable[[Bookings, BookkeepingSettings], Iterator[Row]]]] = {
    Format.DATEV: (DATEV_COLUMNS, datev_rows),
    Format.XERO: (XERO_COLUMNS, xero_rows),
    Format.QUICKBOOKS: (QUICKBOOKS_COLUMNS, quickbooks_rows),
}
"""Columns and rows of each form."""
