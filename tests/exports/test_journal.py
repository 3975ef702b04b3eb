"""The journal: what customers owe against what each kind of resource earned, balanced to the last place."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.errors import BadParameter
from billing_core.exports.journal import JOURNAL_COLUMNS, journal_rows
from billing_core.values.decimals import EXACT
from billing_core.values.journal_accounts import JournalAccounts

PRICE = Decimal("0.00004")


def sums(organization="org_a", ai="0", compute="0", storage="0", price=PRICE):
    return {
        "organization_id": organization,
        "credit_price_usd": price,
        "credits_ai_tokens": Decimal(ai),
        "credits_compute": Decimal(compute),
        "credits_storage": Decimal(storage),
    }


def lines(*rows, accounts=None, period="2026-10"):
    """Lines as tuples in the order of the file's columns, amounts as text."""
    found = journal_rows(rows, accounts or JournalAccounts(), period)
    return [
        tuple(
            format(value.normalize(), "f") if isinstance(value, Decimal) else value
            for value in (getattr(line, name) for name in JOURNAL_COLUMNS)
        )
        for line in found
    ]


def test_a_file_has_six_columns():
    assert JOURNAL_COLUMNS == ("period", "account", "organization", "debit", "credit", "reference")


def test_an_organization_owes_what_its_kinds_of_resource_earned():
    assert lines(sums(ai="100000", compute="50000", storage="500")) == [
        ("2026-10", "1200", "org_a", "6.02", None, "2026-10/org_a/receivable"),
        ("2026-10", "4000", "org_a", None, "4", "2026-10/org_a/ai_tokens"),
        ("2026-10", "4010", "org_a", None, "2", "2026-10/org_a/compute"),
        ("2026-10", "4020", "org_a", None, "0.02", "2026-10/org_a/storage"),
    ]


def test_sums_at_different_prices_are_added_up():
    assert lines(sums(ai="100000"), sums(ai="100000", price=Decimal("0.00005"))) == [
        ("2026-10", "1200", "org_a", "9", None, "2026-10/org_a/receivable"),
        ("2026-10", "4000", "org_a", None, "9", "2026-10/org_a/ai_tokens"),
    ]


def test_nothing_earned_is_no_line():
    assert lines(sums()) == []
    assert lines() == []
    assert lines(sums() | {"credits_ai_tokens": None}) == []


def test_usage_without_an_organization_comes_last_and_under_its_own_name():
    found = lines(sums(None, ai="25000"), sums("", ai="25000"), sums("zebra", ai="25000"), sums("Ant", ai="25000"))
    assert [(line[2], line[3], line[5]) for line in found if line[3]] == [
        ("Ant", "1", "2026-10/Ant/receivable"),
        ("zebra", "1", "2026-10/zebra/receivable"),
        ("(none)", "2", "2026-10/(none)/receivable"),
    ]


def test_an_organization_that_is_called_none_has_references_of_its_own():
    found = lines(sums(None, ai="1"), sums("(none)", ai="1"), sums("a/b", ai="1"))
    references = [line[5] for line in found]
    assert len(set(references)) == len(references)
    assert "2026-10/%28none%29/receivable" in references
    assert "2026-10/a%2Fb/receivable" in references


def test_a_month_that_took_back_more_than_it_used_has_its_sides_swapped():
    assert lines(sums(ai="-100000")) == [
        ("2026-10", "1200", "org_a", None, "4", "2026-10/org_a/receivable"),
        ("2026-10", "4000", "org_a", "4", None, "2026-10/org_a/ai_tokens"),
    ]


def test_one_kind_may_take_back_while_another_earns():
    assert lines(sums(ai="-25000", compute="75000")) == [
        ("2026-10", "1200", "org_a", "2", None, "2026-10/org_a/receivable"),
        ("2026-10", "4000", "org_a", "1", None, "2026-10/org_a/ai_tokens"),
        ("2026-10", "4010", "org_a", None, "3", "2026-10/org_a/compute"),
    ]
    assert [line[1] for line in lines(sums(ai="-25000", compute="25000"))] == ["4000", "4010"]


def test_amounts_are_not_rounded():
    assert lines(sums(ai="0.000001", price=Decimal("0.000000000001")))[0][3] == "0.000000000000000001"


def test_books_go_where_the_accounts_say():
    accounts = JournalAccounts.parse("receivable=1400, ai_tokens=8400 AI,storage=8402")
    assert accounts == JournalAccounts("1400", "8400 AI", "4010", "8402")
    assert [line[1] for line in lines(sums(ai="1", storage="1"), accounts=accounts)] == ["1400", "8400 AI", "8402"]


def test_no_accounts_named_are_the_usual_ones():
    assert JournalAccounts.parse(" ") == JournalAccounts("1200", "4000", "4010", "4020")


def test_kinds_may_share_an_account():
    accounts = JournalAccounts.parse("ai_tokens=4000,compute=4000,storage=4000")
    assert [line[1] for line in lines(sums(ai="1", compute="1"), accounts=accounts)] == ["1200", "4000", "4000"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("revenue=4000", "accounts: 'revenue=4000' is not accepted; expected NAME=ACCOUNT with a name of receivable,"),
        ("receivable", "accounts: 'receivable' is not accepted; expected NAME=ACCOUNT"),
        ("storage=1,storage=2", "accounts: 'storage=2' is not accepted; expected storage once; it already is 1"),
        ("storage==1+1", "expected an account of 1 to 64 letters, digits, spaces or"),
        ("storage=", "expected an account of 1 to 64 letters"),
        ("storage=" + "1" * 65, "expected an account of 1 to 64 letters"),
        ("compute=1200", "expected a receivable account that is not a revenue account as well"),
    ],
)
def test_accounts_that_cannot_be_are_refused_in_one_line(text, says):
    with pytest.raises(BadParameter) as caught:
        JournalAccounts.parse(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


credit_sums = st.integers(-(10**24), 10**24).map(lambda n: EXACT.scaleb(Decimal(n), -6))
month_sums = st.builds(
    sums,
    organization=st.none() | st.text(max_size=4),
    ai=credit_sums,
    compute=credit_sums,
    storage=credit_sums,
    price=st.integers(1, 10**17).map(lambda n: EXACT.scaleb(Decimal(n), -12)),
)


@given(st.lists(month_sums, max_size=8))
def test_debits_equal_credits_and_receivables_equal_the_amount(rows):
    """Whatever the sums, to the last place; every line has one side, every reference is one line."""
    found = journal_rows(rows, JournalAccounts(), "2026-10")
    debit = credit = receivable = amount = Decimal(0)
    for line in found:
        assert (line.debit is None) != (line.credit is None)
        assert (line.debit or line.credit or 0) > 0
        debit, credit = EXACT.add(debit, line.debit or 0), EXACT.add(credit, line.credit or 0)
        if line.account == "1200":
            receivable = EXACT.add(receivable, EXACT.subtract(line.debit or Decimal(0), line.credit or Decimal(0)))
    for row in rows:
        for part in ("ai_tokens", "compute", "storage"):
            amount = EXACT.add(amount, EXACT.multiply(row[f"credits_{part}"], row["credit_price_usd"]))
    assert debit == credit
    assert receivable == amount
    assert len({line.reference for line in found}) == len(found)


@given(st.lists(month_sums, max_size=6), st.randoms())
def test_the_order_of_sums_does_not_matter(rows, random):
    shuffled = random.sample(rows, len(rows))
    assert journal_rows(shuffled, JournalAccounts(), "2026-10") == journal_rows(rows, JournalAccounts(), "2026-10")
