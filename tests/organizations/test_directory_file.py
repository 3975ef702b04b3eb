"""The organization map as a file: what is read, what is refused and where, and that it comes back as it was written."""

from __future__ import annotations

import unicodedata
from hashlib import sha256

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from billing_core.organizations.directory_file import (
    Change,
    RejectedDirectoryRow,
    can_be_written,
    csv_lines,
    faults,
    parse,
)

HEADER = "organization_id,name,customer_id\n"


def read(text: str) -> tuple[Change, ...]:
    found = parse(text.encode())
    assert found.rejected == ()
    return found.changes


def refused(data: str | bytes) -> list[tuple[int, str, str]]:
    found = parse(data if isinstance(data, bytes) else data.encode())
    assert found.changes == ()
    return [(one.row, one.field, one.reason) for one in found.rejected]


def test_each_row_is_a_change():
    text = HEADER + 'org_a,"Acme, Inc.",cus_a\norg_b,Bolt,cus_b\n'
    assert read(text) == (Change("org_a", "Acme, Inc.", "cus_a"), Change("org_b", "Bolt", "cus_b"))
    found = parse(text.encode())
    assert (found.rows, found.sha256) == (2, sha256(text.encode()).hexdigest())


def test_an_empty_cell_leaves_things_as_they_are_and_a_dash_clears():
    assert read(HEADER + "org_a,,cus_a\norg_b,-,\n") == (Change("org_a", None, "cus_a"), Change("org_b", "", None))


def test_a_byte_order_mark_semicolons_and_other_line_ends_are_understood():
    assert read("\ufefforganization_id;customer_id\r\norg_a;cus_a\r\n") == (Change("org_a", None, "cus_a"),)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_a_map_is_read_however_a_spreadsheet_saved_it(separator, encoding, end):
    rows = [f"sep={separator}", "organization_id,name,customer_id,", ",,,", "org_a,Müller,cus_a,"]
    text = end.join(row.replace(",", separator) if "=" not in row else row for row in rows)
    assert parse(text.encode(encoding)).changes == (Change("org_a", "Müller", "cus_a"),)


def test_name_or_customer_may_be_missing_and_columns_stand_in_any_order():
    assert read("name,organization_id\nAcme,org_a\n") == (Change("org_a", "Acme"),)
    assert read("customer_id,organization_id\ncus_a,org_a\n") == (Change("org_a", None, "cus_a"),)


def test_empty_lines_are_nothing_and_still_count_as_rows_of_the_file():
    assert refused(HEADER + "\n,,\norg_a,Acme,cus a\n")[0][:2] == (4, "customer_id")


def test_cells_that_a_spreadsheet_export_neutralised_are_read_back_as_they_were():
    assert read(HEADER + "'=org,'+Acme,'@cus\n'-,'-,cus_b\n") == (
        Change("=org", "+Acme", "@cus"),
        Change("-", "-", "cus_b"),
    )


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ("org_a,Ac\x07me,cus_a", "name", "without control characters"),
        ('org_a,"Ac\nme",cus_a', "name", "one line of text"),
        ("org_a,Ac\u2028me,cus_a", "name", "one line of text"),
        ("org_a, Acme,cus_a", "name", "no white space at its beginning and end"),
        ("org_a,Acme,cus a", "customer_id", "no white space"),
        ("org_a,Acme,cus_a ", "customer_id", "no white space"),
        ("org_a,Acme,–", "customer_id", "signs of ASCII"),  # a hyphen that a spreadsheet improved
        ("org_a,Acme\u202e,cus_a", "name", "direction of writing"),
        (f"{'o' * 201},Acme,cus_a", "organization_id", "at most 200 characters, not 201"),
        (f"org_a,{'n' * 201},cus_a", "name", "at most 200 characters, not 201"),
        (f"org_a,Acme,{'c' * 201}", "customer_id", "at most 200 characters, not 201"),
        (",Acme,cus_a", "organization_id", "expected the id of an organization"),
        ("org_a,Acme", "row", "has 2 cells where the header has 3"),
        ("org_a,Acme,cus_a,more", "row", "has 4 cells where the header has 3"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_and_nothing_is(row, field, reason):
    (found,) = refused(HEADER + f"org_ok,Fine,cus_ok\n{row}\n")
    assert found[:2] == (3, field)
    assert reason in found[2]


def test_every_bad_row_is_named_not_only_the_first():
    assert [one[:2] for one in refused(HEADER + "org_a,Acme,cus a\norg_b, Bolt,cus_b\n")] == [
        (2, "customer_id"),
        (3, "name"),
    ]


def test_an_organization_stands_in_a_file_once():
    assert refused(HEADER + "org_a,Acme,\norg_b,Bolt,\norg_a,Acme,\n") == [
        (4, "organization_id", "'org_a' is already in row 2; keep one of them")
    ]


@pytest.mark.parametrize(
    ("data", "row", "field", "reason"),
    [
        (b"", 1, "organization_id", "does not name this column"),
        ("org_a,Acme,cus_a\n", 1, "organization_id", "does not name this column"),
        ("organization_id\norg_a\n", 1, "name", "neither name nor customer_id"),
        ("organization_id,name,price\n", 1, "price", "no such column"),
        ("organization_id,name,name\n", 1, "name", "is there 2 times"),
        (HEADER.encode() + "org_a,Ömer,cus_a\n".encode("cp1252"), 2, "file", "is 0xD6 ('Ö' in Windows-1252)"),
        (HEADER.encode("utf-16")[:-1], 1, "file", "is not UTF-16"),
        (b"sep=:\norganization_id:name\n", 1, "file", "says that ':' separates its cells"),
        (HEADER + 'org_a,"Acme,cus_a\n', 2, "file", "is not valid CSV from here on"),
        (HEADER + f'org_a,"{"n" * 200_000}",cus_a\n', 2, "file", "is not valid CSV from here on"),
        (b"x" * (5 * 1024 * 1024 + 1), 1, "file", "at most 5,242,880"),
        (HEADER + "org_a,,\n" * 100_001, 100_002, "file", "more than 100,000 rows"),
    ],
)
def test_a_file_that_is_none_says_why(data, row, field, reason):
    found = refused(data)[0]
    assert found[:2] == (row, field)
    assert reason in found[2]


def test_a_long_cell_is_shown_by_its_beginning():
    assert len(refused(HEADER + f"org_a,{'n' * 100_000},cus_a\n")[0][2]) < 200


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ONE_LINE = ANY_TEXT.filter(lambda text: not any(unicodedata.category(c) in {"Cc", "Zl", "Zp"} for c in text))
LINES = st.dictionaries(
    ONE_LINE.filter(can_be_written),
    st.tuples(st.none() | ONE_LINE.filter(bool), st.none() | ONE_LINE.filter(bool)).filter(
        lambda line: not any(faults(Change("o", line[0], line[1])))
    ),
    max_size=8,
)


@given(lines=LINES)
@example(lines={"=1+1": ("-", "@cus"), "-": ('"quoted", name', None), "a;b": ("''=", "cus;a")})
def test_what_is_written_is_what_is_read_back(lines):
    text = "".join(csv_lines((one, *line) for one, line in lines.items()))
    found = parse(text.encode())
    assert found.rejected == ()
    assert found.changes == tuple(Change(one, *line) for one, line in lines.items())


@given(data=st.binary(max_size=200) | ANY_TEXT.map(lambda text: (HEADER + text).encode()))
def test_whatever_is_uploaded_is_either_used_or_refused_with_a_reason(data):
    found = parse(data)
    assert not (found.changes and found.rejected)
    for one in found.rejected:
        assert isinstance(one, RejectedDirectoryRow)
        assert one.row >= 1
        assert one.reason


@pytest.mark.parametrize("organization_id", ["", " ", "a\nb", "o" * 201])
def test_an_id_that_no_file_can_hold_is_not_written(organization_id):
    assert not can_be_written(organization_id)
