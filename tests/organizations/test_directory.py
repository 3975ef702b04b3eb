"""Names and customers of organizations: who may see and change them, what a preview says, what applying it does."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest

from billing_core.access import Principal, Role
from billing_core.errors import AccessDenied, BadParameter
from billing_core.ledger.directory import Line
from billing_core.ledger.stripe_snapshots import StoredObject, StripeSnapshots
from billing_core.organizations.directory import Applied, Directory, DirectoryEntry
from billing_core.organizations.directory_file import Change
from billing_core.settings import load_settings
from billing_core.stripe.model import Customer
from billing_core.stripe_sync.pipeline import Amounts
from tests.factories import EVERYONE, events_table, ledger_at
from tests.stripe_sync.push_world import use

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TODAY = NOW - timedelta(hours=3)
LIMITED = Principal("admin-a", Role.ADMIN, frozenset({"org_a"}))


class Office:
    """A ledger and the directory over it."""

    def __init__(self, path, *rows, **environment):
        self.ledger = ledger_at(path, rows)
        variables = {"BILLING_WAREHOUSE_URL": f"duckdb:///{path}", "BILLING_MODE": "live", **environment}
        settings = load_settings(variables, env_file=None)
        self.directory = Directory(self.ledger, settings, lambda: NOW)

    def book(self, *rows):
        self.ledger.book(events_table(rows), run_id="more")

    def change(self, *changes, who=EVERYONE):
        return self.directory.apply(who, self.directory.preview(who, changes))

    def knows(self, *customers):
        """Stripe's customers, as last read."""
        rows = [StoredObject(c.id, c.id, msgspec.json.encode(c).decode(), NOW) for c in customers]
        snapshots = StripeSnapshots(self.ledger.engine)
        snapshots.store("customer", rows)
        snapshots.store("picture", [StoredObject("picture", None, "{}", NOW)])

    def customers(self):
        """Event → who pays."""
        return dict(self.ledger.engine.rows("SELECT id, customer_id FROM events"))


@pytest.fixture
def office(tmp_path):
    made = Office(
        tmp_path / "billing.duckdb",
        use("a1", TODAY, "100", None, organization_id="org_a"),
        use("a2", TODAY, "20", None, organization_id="org_a"),
        use("b1", TODAY, "500", None, organization_id="org_b"),
        use("c1", TODAY, "7", "cus_c", organization_id="org_c"),
        use("c2", TODAY, "7", "cus_d", organization_id="org_c"),
        use("n1", TODAY, "9", None, organization_id=None),
    )
    yield made
    made.ledger.engine.close()


# ── seeing ───────────────────────────────────────────────────────────────────────────────────────


def test_organizations_nobody_pays_for_come_first_with_what_is_at_stake(office):
    office.change(Change("org_new", "New Ltd", "cus_n"), Change("org_c", "Cedar"))
    assert office.directory.entries(EVERYONE) == [
        DirectoryEntry("org_b", None, None, (), Amounts(1, Decimal(500), Decimal("0.02"))),
        DirectoryEntry("org_a", None, None, (), Amounts(2, Decimal(120), Decimal("0.0048"))),
        DirectoryEntry("org_c", "Cedar", None, ("cus_c", "cus_d"), Amounts()),
        DirectoryEntry("org_new", "New Ltd", "cus_n", (), Amounts()),
    ]


def test_nothing_is_at_stake_once_the_organization_is_mapped(office):
    office.change(Change("org_b", None, "cus_b"))
    (found,) = [entry for entry in office.directory.entries(EVERYONE) if entry.organization_id == "org_b"]
    assert found == DirectoryEntry("org_b", None, "cus_b", (), Amounts())


def test_what_the_earlier_system_billed_and_what_is_not_billed_is_not_at_stake(tmp_path):
    office = Office(
        tmp_path / "billing.duckdb",
        use("1", TODAY, customer=None, legacy_status="processed"),
        use("2", TODAY, customer=None, environment="sdk-experiment"),
    )
    assert office.directory.entries(EVERYONE) == [DirectoryEntry("org_a", None, None, (), Amounts())]
    office.ledger.engine.close()


def test_new_events_are_seen_as_soon_as_they_are_booked(office):
    office.directory.entries(EVERYONE)
    office.book(use("b2", TODAY, "1000", None, organization_id="org_b"))
    assert office.directory.entries(EVERYONE)[0].at_stake.events == 2


def test_an_admin_limited_to_organizations_sees_those_and_nothing_of_others(office):
    office.change(Change("org_a", "Acme", "cus_a"), Change("org_b", "Bolt", "cus_b"))
    assert [entry.organization_id for entry in office.directory.entries(LIMITED)] == ["org_a"]
    assert office.directory.names(LIMITED) == {"org_a": "Acme"}
    assert [row.organization_id for row in office.directory.history(LIMITED)] == ["org_a"]
    text = "".join(office.directory.csv_lines(LIMITED))
    assert text == "organization_id,name,customer_id\r\norg_a,Acme,cus_a\r\n"
    nobody = Principal("nobody", Role.ADMIN, frozenset())
    assert office.directory.entries(nobody) == []
    assert office.directory.names(nobody) == {}


@pytest.mark.parametrize("role", [Role.ANALYST, Role.FINANCE])
def test_only_admins_see_the_directory(office, role):
    someone = Principal("someone", role)
    for ask in (
        office.directory.entries,
        office.directory.history,
        office.directory.csv_lines,
        office.directory.stripe_customers,
    ):
        with pytest.raises(AccessDenied):
            ask(someone)
    with pytest.raises(AccessDenied):
        office.directory.preview(someone, [])


def test_finance_reads_names_and_analysts_do_not(office):
    assert office.directory.names(Principal("fay", Role.FINANCE)) == office.directory.names(EVERYONE)
    with pytest.raises(AccessDenied):
        office.directory.names(Principal("ann", Role.ANALYST))


def test_an_admin_limited_to_organizations_changes_nothing_not_even_in_those(office):
    preview = office.directory.preview(EVERYONE, [Change("org_a", None, "cus_a")])
    for refused in (
        lambda: office.directory.preview(LIMITED, [Change("org_a", "Acme")]),
        lambda: office.directory.apply(LIMITED, preview),
        lambda: office.directory.stripe_customers(LIMITED),
    ):
        with pytest.raises(AccessDenied, match="admins who may see all"):
            refused()
    assert office.customers()["a1"] is None


# ── previews ─────────────────────────────────────────────────────────────────────────────────────


def test_a_preview_says_what_becomes_billable_and_writes_nothing(office):
    found = office.directory.preview(EVERYONE, [Change("org_a", "Acme", "cus_a"), Change("org_b", customer_id="cus_b")])
    assert [(s.organization_id, s.before, s.after, s.moved.events, s.moved.credits) for s in found.steps] == [
        ("org_a", Line(), Line("Acme", "cus_a"), 2, 120),
        ("org_b", Line(), Line(None, "cus_b"), 1, 500),
    ]
    assert (found.moved.events, found.moved.credits, found.moved.amount_usd) == (3, 620, Decimal("0.0248"))
    assert set(office.customers().values()) == {None, "cus_c", "cus_d"}
    assert office.directory.history(EVERYONE) == []


def test_what_is_as_wanted_already_is_unchanged(office):
    office.change(Change("org_a", "Acme", "cus_a"))
    found = office.directory.preview(EVERYONE, [Change("org_a", "Acme"), Change("org_b", ""), Change("org_c", "Cedar")])
    assert ([s.organization_id for s in found.steps], found.unchanged) == (["org_c"], 2)
    assert office.directory.apply(EVERYONE, office.directory.preview(EVERYONE, [])) == Applied(0, 0)


def test_a_part_that_is_not_named_stays_and_empty_text_clears_it(office):
    office.change(Change("org_a", "Acme", "cus_a"))
    office.change(Change("org_a", customer_id=""))
    assert office.directory.names(EVERYONE) == {"org_a": "Acme"}
    assert office.directory.customers(EVERYONE) == {}
    office.change(Change("org_a", name=""))
    assert office.directory.names(EVERYONE) == {}


def warnings(office, customer_id):
    (step,) = office.directory.preview(EVERYONE, [Change("org_a", None, customer_id)]).steps
    return " ".join(step.warnings)


def test_a_customer_stripe_does_not_know_is_warned_of(office):
    assert "were never read: whether it knows cus_a is unknown" in warnings(office, "cus_a")
    office.knows(Customer("cus_a", "Acme", None), Customer("cus_gone", None, None, is_deleted=True))
    assert warnings(office, "cus_a") == ""
    assert "did not know cus_x when its customers were last read" in warnings(office, "cus_x")
    assert "cus_gone was deleted at Stripe" in warnings(office, "cus_gone")
    assert [one.id for one in office.directory.stripe_customers(EVERYONE)] == ["cus_a"]


def test_events_too_old_for_stripe_are_warned_of(office):
    office.knows(Customer("cus_a", "Acme", None))
    office.book(use("a0", NOW - timedelta(days=36), "3", None, organization_id="org_a"))
    assert warnings(office, "cus_a").startswith("1 of the events are older than 35 days")


def test_a_default_customer_is_spoken_of(tmp_path):
    office = Office(tmp_path / "billing.duckdb", BILLING_DEFAULT_CUSTOMER_ID="cus_default")
    found = office.directory.preview(EVERYONE, [Change("org_a", None, "cus_a")])
    assert "assigned to the default customer cus_default stay there until a pull reads them again" in found.notes[0]
    assert office.directory.preview(EVERYONE, [Change("org_a", "Acme")]).notes == ()
    office.ledger.engine.close()


def test_an_overriding_default_customer_is_spoken_of(tmp_path):
    office = Office(
        tmp_path / "billing.duckdb",
        use("1", TODAY, customer=None),
        BILLING_DEFAULT_CUSTOMER_ID="cus_default",
        BILLING_OVERRIDE_CUSTOMER_ID="true",
    )
    found = office.directory.preview(EVERYONE, [Change("org_a", None, "cus_a")])
    assert "bills everything to cus_default: the map has no effect" in found.notes[0]
    assert found.moved.events == 0
    office.ledger.engine.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (Change("org_a", "two\nlines"), "name: .* one line of text"),
        (Change("org_a", None, "cus a"), "customer_id: 'cus a' is not accepted; expected a Stripe customer id"),
        (Change(" "), "organization_id: ' ' is not accepted; expected the id of an organization"),
        (Change("org_a", "n" * 201), "at most 200 characters, not 201"),
    ],
)
def test_what_cannot_be_kept_is_refused_in_one_line(office, change, says):
    with pytest.raises(BadParameter, match=says):
        office.directory.preview(EVERYONE, [change])


def test_an_organization_is_changed_once_at_a_time(office):
    with pytest.raises(BadParameter, match="each organization once"):
        office.directory.preview(EVERYONE, [Change("org_a", "A"), Change("org_a", "B")])


# ── applying ─────────────────────────────────────────────────────────────────────────────────────


def test_applying_does_what_the_preview_said(office):
    assert office.change(Change("org_a", "Acme", "cus_a"), Change("org_c", "Cedar", "cus_x")) == Applied(2, 2)
    assert office.customers() == {"a1": "cus_a", "a2": "cus_a", "b1": None, "c1": "cus_c", "c2": "cus_d", "n1": None}
    assert office.directory.names(EVERYONE) == {"org_a": "Acme", "org_c": "Cedar"}
    assert office.directory.customers(EVERYONE) == {"org_a": "cus_a", "org_c": "cus_x"}


def test_a_preview_that_somebody_overtook_is_refused_whole(office):
    preview = office.directory.preview(EVERYONE, [Change("org_b", None, "cus_b"), Change("org_a", None, "cus_a")])
    office.change(Change("org_a", None, "cus_other"), who=Principal("ben", Role.ADMIN))
    with pytest.raises(BadParameter, match=r"'org_a'.*ben changed it since: preview again"):
        office.directory.apply(EVERYONE, preview)
    assert office.customers()["b1"] is None


# ── files ────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_is_previewed_applied_and_audited_with_its_hash(office):
    parsed = office.directory.parse_import(b"organization_id,name,customer_id\norg_a,Acme,cus_a\norg_c,,\n")
    preview = office.directory.preview(EVERYONE, parsed)
    assert (len(preview.steps), preview.unchanged, preview.source) == (1, 1, "import")
    assert office.directory.apply(EVERYONE, preview) == Applied(1, 2)
    (entry,) = [e for e in office.ledger.audit_entries() if e["action"] == "organization map"]
    detail = json.loads(entry["detail"])
    assert (entry["actor"], detail["source"], detail["sha256"]) == ("tester", "import", parsed.sha256)
    assert office.directory.history(EVERYONE)[0].source == "import"


def test_a_file_with_a_fault_is_refused_whole(office):
    parsed = office.directory.parse_import(b"organization_id,customer_id\norg_a,cus_a\norg_b,cus b\n")
    with pytest.raises(BadParameter, match="row 3, customer_id"):
        office.directory.preview(EVERYONE, parsed)


def test_the_map_as_a_file_read_back_changes_nothing(office):
    office.book(
        use("x1", TODAY, customer=None, organization_id="=org"), use("x2", TODAY, customer=None, organization_id="a\nb")
    )
    office.change(Change("org_a", '"Acme", Inc.', "cus_a"), Change("=org", "-", "cus_e"))
    text = "".join(office.directory.csv_lines(EVERYONE))
    assert "a\nb" not in text
    found = office.directory.preview(EVERYONE, office.directory.parse_import(text.encode()))
    assert (found.steps, found.unchanged) == ((), 4)
