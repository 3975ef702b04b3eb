"""Names and customers on the Organization Stats page, as a script sees it."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from streamlit.testing.v1 import AppTest

from billing_core.access import Principal, Role
from billing_core.ledger.stripe_snapshots import StoredObject, StripeSnapshots
from billing_core.organizations.directory_file import Change
from billing_core.runtime import clock
from billing_core.stripe.model import Customer
from billing_core.web import wiring
from components.organizations.query import OrganizationView
from components.shared import sign_in
from tests.factories import EVERYONE, ledger_at, usage_row
from tests.pages.opening import opened_at

LIMITED = Principal("admin-a", Role.ADMIN, frozenset({"org_a"}))
FILE = b"organization_id,name,customer_id\norg_a,Acme,cus_a\norg_b,Bolt,\n"


def nobodys(id_: str, organization: str) -> dict:
    """Two hours ago, 150 credits that nobody pays for."""
    return usage_row(id=id_, timestamp=clock.now() - timedelta(hours=2), customer_id=None, organization_id=organization)


@pytest.fixture(autouse=True)
def booked(demo):
    rows = [nobodys("a1", "org_a"), nobodys("b1", "org_b"), nobodys("b2", "org_b"), usage_row(id="c1")]
    rows[3] |= {"organization_id": "org_c", "customer_id": "cus_c"}
    ledger_at(wiring.settings().warehouse_path, rows).engine.close()


def opened(**query: str) -> AppTest:
    return opened_at("admin", "organization_stats.py", view="Names and customers", **query)


def texts(run: AppTest) -> str:
    """Everything that can be read, without Markdown's escapes."""
    kinds = ("caption", "markdown", "text", "info", "warning", "error", "success")
    return "\n".join(str(element.value) for kind in kinds for element in run.get(kind)).replace("\\", "")


def frame(run: AppTest, column: str):
    """The first table that has this column."""
    return next(one.value for one in run.dataframe if column in one.value.columns)


def keys(run: AppTest) -> set[str]:
    return {button.key for button in run.button}


def customers() -> dict[str, str | None]:
    return dict(wiring.service()._ledger.engine.rows("SELECT id, customer_id FROM events ORDER BY id"))


def stripe_knows(*ids: str) -> None:
    """Customers Stripe knew when they were last read. The test browser cannot type ones that are not to choose from."""
    now, snapshots = clock.now(), StripeSnapshots(wiring.service()._ledger.engine)
    rows = [StoredObject(one, one, msgspec.json.encode(Customer(one, None, None)).decode(), now) for one in ids]
    snapshots.store("customer", rows)
    snapshots.store("picture", [StoredObject("picture", None, "{}", now)])


def editing(run: AppTest, organization: str) -> AppTest:
    run.selectbox(key="org-directory-choice").set_value(organization).run()
    run.button(key="org-directory-edit").click().run()
    return run


def test_the_link_of_stripe_sync_opens_this_view():
    assert OrganizationView.NAMES.value == "Names and customers"


def test_organizations_that_nobody_pays_for_are_named_first():
    run = opened()
    assert (
        "2 organizations have unsent events with no customer assigned: 3 events, 450 credits ($0.02) unbilled"
        in texts(run)
    )
    rows = frame(run, "Unbilled credits")
    assert list(rows["Organization"]) == ["org_b", "org_a", "org_c"]
    assert list(rows["Unbilled credits"]) == ["300", "150", "0"]


def test_a_search_narrows_the_table_and_stands_in_the_address():
    assert list(frame(opened(find="cus_c"), "Organization")["Organization"]) == ["org_c"]
    assert "No organization matches this search." in texts(opened(find="nothing"))


def test_five_hundred_organizations_are_shown_page_by_page():
    directory = wiring.service().organizations.directory
    directory.apply(EVERYONE, directory.preview(EVERYONE, [Change(f"org_{n:03}", f"Name {n}") for n in range(500)]))
    run = opened(part="2")
    assert len(frame(run, "Unbilled credits")) == 25
    assert "26–50 of 503 organizations" in texts(run)


def test_one_organization_is_changed_after_saying_what_that_moves():
    stripe_knows("cus_a", "cus_b")
    run = editing(opened(), "org_b")
    assert "Nothing has changed yet." in texts(run)
    assert run.button(key="org-directory-save").disabled
    run.text_input(key="org-directory-name-org_b").set_value("Bolt *Ltd*").run()
    run.selectbox(key="org-directory-customer-org_b").set_value("cus_b").run()
    assert "Becomes billable to cus_b: 2 events, 300 credits ($0.01)." in texts(run)
    assert customers()["b1"] is None
    save = run.button(key="org-directory-save")
    assert save.label == "Save and move 2 events"
    save.click().run()
    assert customers() == {"a1": None, "b1": "cus_b", "b2": "cus_b", "c1": "cus_c"}
    assert "Saved 1 organization. 2 unsent events moved;" in texts(run)
    assert "org-directory-save" not in keys(run)
    history = frame(run, "By")
    assert (history["By"][0], history["Name"][0]) == ("admin", "none → Bolt *Ltd*")


def test_what_cannot_be_kept_is_said_and_not_saved():
    run = editing(opened(), "org_b")
    run.text_input(key="org-directory-name-org_b").set_value("Bolt \u202eLtd").run()
    assert "is not accepted; expected text without marks that turn the direction of writing" in texts(run)
    assert "org-directory-save" not in keys(run)


def test_a_cancelled_dialog_changes_nothing_and_forgets_what_was_typed():
    run = editing(opened(), "org_b")
    run.text_input(key="org-directory-name-org_b").set_value("Bolt").run()
    run.button(key="org-directory-cancel").click().run()
    assert "org-directory-save" not in keys(run)
    assert editing(run, "org_b").text_input(key="org-directory-name-org_b").value == ""


def test_an_organization_without_events_can_be_mapped_beforehand():
    stripe_knows("cus_new")
    run = opened()
    run.session_state["org.directory-editing"] = "org_new"
    run.run()
    run.selectbox(key="org-directory-customer-org_new").set_value("cus_new").run()
    assert "No unsent events move. New events that name no customer are billed this way from now on." in texts(run)
    run.button(key="org-directory-save").click().run()
    assert wiring.service().organizations.directory.customers(EVERYONE) == {"org_new": "cus_new"}


def test_a_customer_stripe_does_not_know_is_warned_of_and_none_is_a_choice():
    directory = wiring.service().organizations.directory
    directory.apply(EVERYONE, directory.preview(EVERYONE, [Change("org_b", None, "cus_b")]))
    stripe_knows("cus_a")
    run = editing(opened(), "org_b")
    assert run.selectbox(key="org-directory-customer-org_b").value == "cus_b"
    run.selectbox(key="org-directory-customer-org_b").set_value("").run()
    assert "Removed from cus_b: 2 events, 300 credits ($0.01)." in texts(run)
    run.button(key="org-directory-save").click().run()
    assert customers()["b1"] is None
    run.file_uploader[0].upload("map.csv", b"organization_id,customer_id\norg_b,cus_x\n", "text/csv").run()
    (warning,) = frame(run, "Warnings")["Warnings"]
    assert "Stripe did not know cus_x when its customers were last read" in warning


def test_a_change_that_somebody_overtook_is_not_made():
    run = editing(opened(), "org_b")
    run.text_input(key="org-directory-name-org_b").set_value("Bolt").run()
    directory = wiring.service().organizations.directory
    preview = directory.preview(EVERYONE, [Change("org_b", None, "cus_other")])
    kept = type(directory).apply

    def overtaken(self, principal, wanted):
        kept(self, EVERYONE, preview)
        return kept(self, principal, wanted)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(directory), "apply", overtaken)
        run.button(key="org-directory-save").click().run()
    assert "Not saved: preview: 'org_b' is not accepted" in texts(run)
    assert directory.names(EVERYONE) == {}


def test_a_file_is_shown_before_it_is_applied():
    run = opened()
    run.file_uploader[0].upload("map.csv", FILE, "text/csv").run()
    assert "2 new, 0 changed, 0 unchanged. The billed customer changes for 1 event, 150 credits ($0.0060)." in texts(
        run
    )
    assert list(frame(run, "Warnings")["Customer"]) == ["none → cus_a", "none"]
    assert customers()["a1"] is None
    run.button(key="org-directory-apply").click().run()
    assert customers()["a1"] == "cus_a"
    assert "Saved 2 organizations. 1 unsent event moved;" in texts(run)
    assert "org-directory-apply" not in keys(run)


def test_a_file_with_faults_is_named_row_by_row_and_nothing_of_it_is_used():
    run = opened()
    run.file_uploader[0].upload("map.csv", FILE + b"org_c,Cedar,cus c\n", "text/csv").run()
    assert "1 fault in this file. Nothing is imported until all are corrected." in texts(run)
    rows = frame(run, "Reason")
    assert (rows["Row"][0], rows["Field"][0]) == ("4", "customer_id")
    assert "org-directory-apply" not in keys(run)


def test_an_admin_limited_to_organizations_reads_theirs_and_changes_nothing(monkeypatch):
    directory = wiring.service().organizations.directory
    directory.apply(EVERYONE, directory.preview(EVERYONE, [Change("org_a", "Acme"), Change("org_b", "Bolt")]))
    monkeypatch.setattr(sign_in, "_principal", lambda: LIMITED)
    run = opened()
    assert list(frame(run, "Unbilled credits")["Organization"]) == ["org_a"]
    assert "customers are assigned by admins who can see every organization." in texts(run)
    assert not {key for key in keys(run) if key and key.startswith("org-directory")}
    assert not run.file_uploader
    assert list(frame(run, "By")["Organization"]) == ["org_a"]
    assert "org_b" not in texts(run)


def test_whoever_is_no_admin_sees_nothing_of_it(monkeypatch):
    monkeypatch.setattr(sign_in, "_principal", lambda: Principal("finance", Role.FINANCE))
    run = opened()
    assert "the admin role" in run.error[0].value
    assert not run.dataframe
