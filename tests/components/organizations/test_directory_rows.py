from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from billing_core.ledger.customer_mapping import MovedEvents
from billing_core.ledger.directory import DirectoryChange, Line
from billing_core.organizations.directory import DirectoryEntry, DirectoryPreview, PreviewLine
from billing_core.organizations.directory_file import RejectedDirectoryRow
from billing_core.stripe_sync.pipeline import Amounts
from components.organizations import texts
from components.organizations.directory_rows import entry_rows, fits, history_rows, rejected_rows, step_rows
from components.organizations.texts import import_text, moved_text, unbilled_text

TWELVE = MovedEvents(12, Decimal("1234.5"), Decimal("0.04938"))
OPEN = DirectoryEntry("org_a", "Acme", None, ("cus_1", "cus_2"), Amounts(12, Decimal("1234.5"), Decimal("0.04938")))
FINE = DirectoryEntry("org_b", None, "cus_b", (), Amounts())


def step(old=None, new=None, moved=TWELVE, **names):
    return PreviewLine("org_a", Line(names.get("was"), old), Line(names.get("becomes"), new), 0, moved, ("Look.",))


def test_what_is_at_stake_is_a_sentence():
    assert unbilled_text([FINE]) == texts.ALL_ASSIGNED
    assert unbilled_text([OPEN, FINE]) == (
        "1 organization has unsent events with no customer assigned: 12 events, 1,234.5 credits ($0.05) unbilled."
    )
    assert unbilled_text([OPEN, OPEN]).startswith(
        "2 organizations have unsent events with no customer assigned: 24 events"
    )


@pytest.mark.parametrize("text", ["", "ORG_A", "acme", "cus_2", " cme "])
def test_an_organization_is_found_by_its_id_name_and_customers(text):
    assert fits(OPEN, text)


def test_what_is_not_said_of_an_organization_does_not_find_it():
    assert not fits(OPEN, "cus_b")
    assert not fits(FINE, "none")


def test_organizations_as_a_table():
    assert entry_rows([OPEN, FINE]) == {
        "Organization": ["org_a", "org_b"],
        "Name": ["Acme", "none"],
        "Mapped to": ["none", "cus_b"],
        "Named by its traces": ["cus_1, cus_2", "none"],
        "Unbilled events": ["12", "0"],
        "Unbilled credits": ["1,234.5", "0"],
        "Unbilled amount": ["$0.05", "$0"],
    }


@pytest.mark.parametrize(
    ("one", "says"),
    [
        (step(becomes="Acme"), texts.SAME_CUSTOMER),
        (step(None, "cus_m"), "Becomes billable to cus_m: 12 events, 1,234.5 credits ($0.05)."),
        (step("cus_m", "cus_n"), "Moves from cus_m to cus_n: 12 events, 1,234.5 credits ($0.05)."),
        (step("cus_m", None), f"Removed from cus_m: 12 events, 1,234.5 credits ($0.05). {texts.WITHOUT_DEFAULT}"),
        (step(None, "cus_m", MovedEvents()), texts.FROM_NOW_ON),
    ],
)
def test_what_becomes_of_unsent_events_is_said_before_it_happens(one, says):
    assert moved_text(one) == says


def test_a_file_in_a_sentence_and_line_by_line():
    changed = step("cus_m", "cus_n", was="Acme", becomes="Acme")
    preview = DirectoryPreview((step(None, "cus_m", becomes="Acme"), changed), 3, "import")
    assert import_text(preview) == (
        "1 new, 1 changed, 3 unchanged. The billed customer changes for 24 events, 2,469 credits ($0.10)."
    )
    assert import_text(DirectoryPreview((), 3, "import")) == "0 new, 0 changed, 3 unchanged. No unsent events move."
    rows = step_rows(preview.steps)
    assert rows["Name"] == ["none → Acme", "Acme"]
    assert rows["Customer"] == ["none → cus_m", "cus_m → cus_n"]
    assert (rows["Credits"], rows["Amount"], rows["Warnings"]) == (["1,234.5"] * 2, ["$0.05"] * 2, ["Look."] * 2)


def test_bad_rows_are_named():
    assert rejected_rows([RejectedDirectoryRow(1_204, "name", "no white space")]) == {
        "Row": ["1,204"],
        "Field": ["name"],
        "Reason": ["no white space"],
    }


def test_the_history_says_when_who_and_what():
    row = DirectoryChange(
        3, "org_a", Line("Acme", None), Line("Acme", "cus_m"), datetime(2026, 11, 20, 12, tzinfo=UTC), "ben", "page"
    )
    assert history_rows([row], ZoneInfo("Europe/Berlin")) == {
        "Changed (Europe/Berlin)": ["2026-11-20 13:00:00"],
        "By": ["ben"],
        "From": ["page"],
        "Organization": ["org_a"],
        "Name": ["Acme"],
        "Customer": ["none → cus_m"],
    }
