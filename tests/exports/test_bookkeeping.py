"""Bookings for accounting programs: cents, debit equal to credit, receivables equal to invoices; files read back."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.errors import BadParameter
from billing_core.exports.bookkeeping import (
    Bookings,
    InvoicedItem,
    WriteOff,
    cents,
    month_bookings,
    together,
    written_off_in,
)
from billing_core.exports.bookkeeping_files import (
    ROWS,
    BookkeepingSettings,
    csv_text,
    datev_bytes,
    datev_header,
    datev_rows,
    quickbooks_rows,
    xero_rows,
)
from billing_core.exports.model import BOOKKEEPING, Dataset, ExportRequest, Format
from billing_core.types import GetUsageEventsParams
from billing_core.values.decimals import exact_sum
from billing_core.values.journal_accounts import DatevClient, JournalAccounts
from tests.factories import EVERYONE, service_over, usage_row
from tests.lived_in import copied, service_at

OCTOBER = ("2026-10", date(2026, 10, 31))
USUAL = BookkeepingSettings(JournalAccounts(), "", DatevClient())
KINDS = ("ai_tokens", "compute", "storage")


def sums(customer="cus_a", ai="0", compute="0", storage="0", price="0.00004"):
    credits_ = dict(zip(KINDS, (ai, compute, storage), strict=True))
    named = {f"credits_{kind}": Decimal(value) for kind, value in credits_.items()}
    return {"customer_id": customer, "credit_price_usd": Decimal(price), **named}


def when(month: int, day: int = 15) -> datetime:
    return datetime(2026, month, day, tzinfo=UTC)


def lines(bookings):
    return [(one.entry, one.customer_id, str(one.amount)) for one in bookings.postings]


def test_a_customer_owes_whole_cents_and_one_line_takes_what_rounding_leaves():
    booked = month_bookings(*OCTOBER, [sums(ai="100100", compute="50100", storage="500")], {})
    assert lines(booked) == [
        ("receivable", "cus_a", "6.03"),
        ("ai_tokens", None, "-4.00"),
        ("compute", None, "-2.00"),
        ("storage", None, "-0.02"),
        ("rounding", None, "-0.01"),
    ]
    assert booked.exact == Decimal("6.028")


def test_what_is_written_off_is_booked_back_and_the_rest_is_what_the_invoice_says():
    booked = month_bookings(*OCTOBER, [sums(ai="250000")], {"cus_a": Decimal("3.456")})
    assert lines(booked) == [
        ("receivable", "cus_a", "6.54"),
        ("write_off", "cus_a", "3.46"),
        ("ai_tokens", None, "-10.00"),
    ]


def test_an_item_of_its_own_is_owed_in_the_cents_that_stand_on_the_invoice():
    usage = [sums(ai="250100")]  # 10.004: half by the meter, half on two items
    items = [InvoicedItem("cus_a", "2026-10", Decimal("2.501"), 250, when(10), None)] * 2
    booked = month_bookings(*OCTOBER, usage, {}, items)
    assert lines(booked) == [("receivable", "cus_a", "10.00"), ("ai_tokens", None, "-10.00")]
    up = InvoicedItem("cus_a", "2026-10", Decimal("0.005"), 1, when(10), None)
    assert month_bookings(*OCTOBER, [sums(ai="125")], {}, [up]).on("receivable") == Decimal("0.01")


def test_usage_without_a_customer_is_on_nobodys_invoice_and_is_named():
    booked = month_bookings(*OCTOBER, [sums(None, ai="250000"), sums("", ai="1"), sums(ai="25000")], {})
    assert lines(booked) == [("receivable", "cus_a", "1.00"), ("ai_tokens", None, "-1.00")]
    assert booked.without_customer == Decimal("10.00004")


def test_a_month_that_took_back_more_than_it_used_has_the_sides_swapped():
    booked = month_bookings(*OCTOBER, [sums(ai="-25000")], {})
    assert lines(booked) == [("receivable", "cus_a", "-1.00"), ("ai_tokens", None, "1.00")]


rows = st.builds(
    sums,
    customer=st.sampled_from(["cus_a", "cus_b", "cus_c", None]),
    **dict.fromkeys(("ai", "compute", "storage"), st.decimals("-1000000", "99999999", places=6).map(str)),
    price=st.sampled_from(["0.00004", "0.000043216789", "0.01", "7.5"]),
)


@given(months=st.lists(st.lists(rows, max_size=6), min_size=1, max_size=3))
def test_debit_equals_credit_and_each_receivable_is_the_exact_sum_rounded_once(months):
    every = [month_bookings(f"2026-{n:02}", date(2026, n, 28), found, {}) for n, found in enumerate(months, 1)]
    booked = together(every)
    assert exact_sum(one.amount for one in booked.postings) == 0
    assert all(one.amount and one.amount == cents(one.amount) for one in booked.postings)
    for n, found in enumerate(months, 1):
        for customer in {row["customer_id"] for row in found} - {None}:
            exact = exact_sum(
                row[f"credits_{kind}"] * row["credit_price_usd"]
                for row in found
                for kind in KINDS
                if row["customer_id"] == customer
            )
            due = [p.amount for p in booked.postings if (p.period, p.customer_id) == (f"2026-{n:02}", customer)]
            assert due == ([cents(exact)] if cents(exact) else [])
    # Half a cent for each amount that was rounded: nothing but rounding is on that account.
    assert abs(booked.on("rounding")) <= Decimal("0.005") * (sum(map(len, months)) + 3 * len(months))


moments = st.integers(9, 12).map(when)


@given(
    write_offs=st.lists(
        st.builds(
            WriteOff,
            customer_id=st.sampled_from(["cus_a", "cus_b"]),
            month=st.sampled_from(["2026-09", "2026-10", "2026-11"]),
            amount_usd=st.decimals("0.01", "1000", places=6),
            made_at=moments,
            taken_back_at=st.none(),
        ),
        max_size=6,
    ),
    taken_back=st.sets(st.integers(0, 5)),
    closed=st.sets(st.sampled_from([9, 10, 11])),
)
def test_each_write_off_is_booked_once_and_what_is_taken_back_comes_to_nothing(write_offs, taken_back, closed):
    write_offs = [
        replace(one, taken_back_at=one.made_at + timedelta(days=20)) if place in taken_back else one
        for place, one in enumerate(write_offs)
    ]
    closed_at = {f"2026-{month:02}": when(month + 1, 2) for month in closed}
    booked: dict[str, Decimal] = {}
    for number in range(9, 13):
        month = f"2026-{number:02}"
        inside = [one for one in write_offs if one.month == month]
        end = when(number + 1, 1) if number < 12 else datetime(2027, 2, 1, tzinfo=UTC)
        for customer, amount in written_off_in(when(number, 1), end, inside, write_offs, closed_at).items():
            booked[customer] = booked.get(customer, Decimal(0)) + amount
    for customer in ("cus_a", "cus_b"):
        left = sum(one.amount_usd for one in write_offs if one.customer_id == customer and one.taken_back_at is None)
        assert booked.get(customer, 0) == left


def test_a_closed_months_bookings_stay_as_they_were():
    closed_at = {"2026-09": when(10, 2)}
    before = WriteOff("cus_a", "2026-09", Decimal(5), when(9, 20), when(11))
    after = WriteOff("cus_b", "2026-09", Decimal(7), when(11), None)
    both = [before, after]
    assert written_off_in(when(9, 1), when(10, 1), both, both, closed_at) == {"cus_a": Decimal(5)}
    assert written_off_in(when(11, 1), when(12, 1), [], both, closed_at) == {"cus_a": Decimal(-5), "cus_b": Decimal(7)}


# ── files, read back by their published columns ──────────────────────────────────────────────────


def day_in(text: str, form: str) -> date:
    return datetime.strptime(text, form).replace(tzinfo=UTC).date()


def read_xero(data: bytes):
    """(narration, date, account, debit less credit) of a Xero file, which has to balance per journal."""
    found = []
    for row in csv.DictReader(io.StringIO(data.decode())):
        assert row["*Narration"]
        assert row["*TaxRate"]
        day = day_in(row["*Date"], "%d/%m/%Y")
        found.append((row["*Narration"], day, row["*AccountCode"], Decimal(row["*Amount"])))
    return found


def read_quickbooks(data: bytes):
    found = []
    for row in csv.DictReader(io.StringIO(data.decode())):
        assert bool(row["Debits"]) != bool(row["Credits"])
        assert row["Currency"] == "USD"
        day = day_in(row["JournalDate"], "%m/%d/%Y")
        amount = Decimal(row["Debits"]) if row["Debits"] else -Decimal(row["Credits"])
        found.append((row["JournalNo"], day, row["AccountName"], amount))
    return found


def read_datev(data: bytes):
    """Bookings of a DATEV file as (batch, date, account, amount), both accounts of each; checked against its header."""
    head, names, *lines_ = list(csv.reader(io.StringIO(data.decode("cp1252")), delimiter=";"))
    assert head[:5] == ["EXTF", "700", "21", "Buchungsstapel", "13"]
    assert len(head) == 31
    assert len(names) == len(set(names)) == 125
    first, last = (day_in(head[place], "%Y%m%d") for place in (14, 15))
    fiscal = day_in(head[12], "%Y%m%d")
    assert fiscal <= first <= last
    found = []
    for cells in lines_:
        row = dict(zip(names, cells, strict=True))
        amount = Decimal(row["Umsatz (ohne Soll/Haben-Kz)"].replace(",", "."))
        assert amount > 0
        assert row["WKZ Umsatz"] == "USD"
        assert len(row["Buchungstext"]) <= 60
        assert len(row["Belegfeld 1"]) <= 36
        day = day_in(row["Belegdatum"] + str(last.year), "%d%m%Y")
        assert first <= day <= last
        signed = amount if row["Soll/Haben-Kennzeichen"] == "S" else -amount
        found += [("", day, row["Konto"], signed), ("", day, row["Gegenkonto (ohne BU-Schlüssel)"], -signed)]
    return found


READERS = {Format.XERO: read_xero, Format.QUICKBOOKS: read_quickbooks, Format.DATEV: read_datev}


def account_of(form, entry, accounts=USUAL.accounts):
    return accounts.name(entry) if form is Format.QUICKBOOKS else accounts.number(entry)


def asked(form: Format, month: str) -> ExportRequest:
    following = f"{month[:5]}{int(month[5:]) + 1:02}-01"
    window = {"from": f"{month}-01", "to": following, "limit": 1000}
    return ExportRequest(Dataset.USAGE_EVENTS, form, GetUsageEventsParams.parse(window))


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory):
    service = service_at(copied(tmp_path_factory, tmp_path_factory.mktemp("asked")))
    yield service
    service.close()


@pytest.mark.parametrize("form", sorted(BOOKKEEPING))
@pytest.mark.parametrize("month", ["2026-09", "2026-10", "2026-11"])
def test_a_month_of_a_lived_in_ledger_is_read_back_balanced_and_comes_to_what_the_screen_shows(
    lived_in, tmp_path, form, month
):
    request = asked(form, month)
    result = lived_in.exports.write(request, EVERYONE, tmp_path / "f.csv")
    booked = READERS[form]((tmp_path / "f.csv").read_bytes())
    assert booked
    assert sum(amount for *_, amount in booked) == 0
    events = lived_in.get_usage_events(request.params, EVERYONE).events
    due = sum(amount for _, _, account, amount in booked if account == account_of(form, "receivable"))
    by_customer: dict[str, Decimal] = {}
    for event in events:
        if event.customer_id:
            by_customer[event.customer_id] = by_customer.get(event.customer_id, Decimal(0)) + event.amount_usd
    assert due == sum(map(cents, by_customer.values())) == result.totals["receivable_usd"]
    nobodys = sum(event.amount_usd for event in events if not event.customer_id)
    assert result.totals["without_customer_usd"] == nobodys
    assert result.totals["debit_usd"] == result.totals["credit_usd"]
    if form is Format.DATEV:
        assert sum(amount for _, _, account, amount in booked if account == account_of(form, "clearing")) == 0


@pytest.mark.parametrize("form", sorted(BOOKKEEPING))
def test_a_file_says_the_same_each_time_and_has_all_columns_when_empty(lived_in, tmp_path, form):
    empty, full = asked(form, "2020-01"), asked(form, "2026-10")
    assert lived_in.exports.write(empty, EVERYONE, tmp_path / "empty.csv").rows == 0
    assert READERS[form]((tmp_path / "empty.csv").read_bytes()) == []
    assert lived_in.exports.columns(empty) == ROWS[form][0]
    assert lived_in.exports.digest(full, EVERYONE).sha256 == lived_in.exports.digest(full, EVERYONE).sha256


def one_month(customer="cus_a", **facts):
    return month_bookings(*OCTOBER, [sums(customer, ai="25000", **facts)], {})


def test_accounts_tax_and_client_are_those_of_the_settings():
    accounts = JournalAccounts.parse("receivable=10001 Debitoren,ai_tokens=8400 Erloese")
    client = DatevClient.parse("consultant=29098,client=55003,fiscal_year_month=7")
    settings = BookkeepingSettings(accounts, "3", client)
    booked = one_month()
    receivable, revenue = list(datev_rows(booked, settings))
    assert (receivable[6], revenue[6], revenue[8], receivable[8]) == ("10001", "8400", "3", "")
    header = datev_header(booked.postings, settings.datev, "Usage").split(";")
    assert header[10:16] == ["29098", "55003", "20260701", "4", "20261001", "20261031"]
    assert [row[4] for row in quickbooks_rows(booked, settings)] == ["Debitoren", "Erloese"]
    assert {row[4] for row in xero_rows(booked, settings)} == {"3"}
    assert [row[4] for row in quickbooks_rows(booked, USUAL)] == ["Accounts receivable", "AI token revenue"]


def test_a_name_that_reads_like_a_formula_is_text_and_no_letter_breaks_a_file():
    booked = one_month(customer='=cmd|"x"!A1;ü\u4e2d')
    for form, reader in READERS.items():
        names, rows_of = ROWS[form]
        made = list(rows_of(booked, USUAL))
        if form is Format.DATEV:
            data = datev_bytes(datev_header(booked.postings, USUAL.datev, "Usage"), made)
        else:
            data = csv_text(names, made)
        assert sum(amount for *_, amount in reader(data)) == 0
        text = io.StringIO(data.decode("cp1252", "replace"))
        assert not any(cell.startswith("=") for row in csv.reader(text) for cell in row)


@pytest.mark.parametrize(
    ("accounts", "says"),
    [
        ("ai_tokens=Sales", "account number of up to 4 digits"),
        ("receivable=123456", "account number of up to 5 digits"),
        ("receivable=1370", "another account than clearing"),
    ],
)
def test_accounts_that_datev_cannot_have_are_named(accounts, says):
    settings = BookkeepingSettings(JournalAccounts.parse(accounts), "", DatevClient())
    with pytest.raises(BadParameter, match=says):
        list(datev_rows(one_month(), settings))


def test_a_datev_file_is_of_one_fiscal_year():
    both = together([one_month(), month_bookings("2027-01", date(2027, 1, 31), [sums(ai="25000")], {})])
    with pytest.raises(BadParameter, match="one fiscal year per DATEV file"):
        list(datev_rows(both, USUAL))
    july = BookkeepingSettings(JournalAccounts(), "", DatevClient(fiscal_year_month=7))
    assert len(list(datev_rows(both, july))) == 4


@pytest.mark.parametrize("text", ["consultant=5", "client=x", "consultant", "consultant=1001,consultant=1002", "a=1"])
def test_a_client_that_datev_cannot_have_is_refused_in_one_line(text):
    with pytest.raises(BadParameter) as error:
        DatevClient.parse(text)
    assert "\n" not in str(error.value)


def test_nothing_to_book_is_no_booking():
    assert month_bookings(*OCTOBER, [], {}) == Bookings((), Decimal(0), Decimal(0))


def test_a_file_for_datev_is_called_as_datev_wants_it(tmp_path):
    service = service_over(tmp_path / "l.duckdb", [usage_row()])
    assert service.exports.file_name(asked(Format.DATEV, "2026-10")) == "EXTF_usage-events_2026-10_UTC.csv"
    service.close()
