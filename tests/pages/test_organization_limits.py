"""The view "Plans and limits" as a script sees it, over a ledger and a Stripe (the sandbox's); nobody waits for it."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from billing_core.access import Principal, Role
from billing_core.errors import WarehouseError
from billing_core.organizations.limits_service import LimitsService
from billing_core.runtime import clock
from billing_core.sandbox.data.catalog import STRIPE_KEY
from billing_core.settings import load_settings
from billing_core.stripe.provider import StripeProvider
from billing_core.web import wiring
from components.shared import sign_in
from tests.factories import EVERYONE, ledger_at
from tests.pages.opening import opened_at
from tests.stand_ins import replace_method
from tests.stripe.fake import QUICK
from tests.stripe_sync.push_world import use

HOUR = timedelta(hours=1)
MANY = 1_000


def ago(hours):
    return clock.now().replace(microsecond=0) - hours * HOUR


USAGE = [
    use("a1", ago(2), "9500.5"),
    use("a2", ago(3), "300", organization_id="org_b"),
    use("b1", ago(4), "20", customer="cus_b", organization_id="org_b"),
    use("n1", ago(5), "5", customer=None, organization_id="org_none"),
]


class Connected:
    """In place of the demo's own Stripe: the one of the tests; `gate` holds readings back until it is set."""

    def __init__(self, stripe):
        self.base = load_settings(
            {"STRIPE_API_KEY": STRIPE_KEY, "STRIPE_API_BASE": stripe.url, "BILLING_MODE": "demo"}, env_file=None
        )
        self.gate = threading.Event()
        self.gate.set()

    def langfuse(self, settings, cards):
        raise AssertionError("nobody pulls here")

    def stripe(self, settings):
        assert self.gate.wait(20)
        update = {name: getattr(self.base, name) for name in ("stripe_api_key", "stripe_api_base")}
        return StripeProvider.from_settings(settings.model_copy(update=update), QUICK)

    def close(self):
        pass


@pytest.fixture
def connected(demo, stripe, monkeypatch):
    stripe.switch(profiles={"cus_a": "free", "cus_b": "free"})
    found = Connected(stripe)
    monkeypatch.setattr(wiring, "demo_sandbox", wiring.Once(lambda: found))
    ledger_at(wiring.settings().warehouse_path, USAGE).engine.close()
    yield found
    found.gate.set()
    wiring.plans_job().wait(20)


def limits():
    return wiring.service().organizations.limits


def opened(name="admin", **query):
    return opened_at(name, "organization_stats.py", **{"view": "Plans and limits", **query})


def texts(run):
    kinds = ("caption", "markdown", "text", "info", "warning", "error", "success")
    return "\n".join(str(element.value) for kind in kinds for element in run.get(kind)).replace("\\", "")


def grids(run):
    """Every table as columns of text, by its columns' names."""
    return [frame.value for frame in run.dataframe]


def table(run):
    (found,) = [frame for frame in grids(run) if "Organizations" in frame.columns]
    return found


def test_the_first_look_reads_plans_in_the_background_and_shows_what_is_known_meanwhile(connected):
    connected.gate.clear()
    run = opened()
    assert "Reading plans from Stripe…" in texts(run)
    assert "not been read from Stripe yet" in texts(run)
    assert set(table(run)["Plan"]) == {"unknown", "no customer"}
    connected.gate.set()
    wiring.plans_job().wait(20)
    run.run()
    assert "Reading plans from Stripe…" not in texts(run)
    assert "Plans read from Stripe just now" in texts(run)
    first = table(run).iloc[0]
    assert (first["Organizations"], first["Customer"], first["Plan"]) == ("org_a, org_b", "cus_a", "Free")
    assert (first["Credits"], first["Used"], first["bar"]) == ("9,800.5 of 10,000", "98 %", 98.0)


def test_a_fresh_reading_is_not_read_again(connected, stripe):
    limits().refresh(EVERYONE)
    before = len(stripe.control("GET", "/_sandbox/requests"))
    run = opened()
    assert wiring.plans_job().state is None
    assert len(stripe.control("GET", "/_sandbox/requests")) == before
    assert len(table(run)) == 3


def test_a_reading_that_fails_says_so_and_is_not_repeated_by_every_run(connected, stripe):
    stripe.fault("403", path_prefix="/v1/subscriptions", times=MANY)
    run = opened()
    wiring.plans_job().wait(20)
    run.run()
    assert "403" in texts(run)
    assert wiring.plans_job().state.number == 1
    run.run()
    assert wiring.plans_job().state.number == 1
    stripe.control("DELETE", "/_sandbox/faults")
    run.button(key="org-limits-read").click().run()
    wiring.plans_job().wait(20)
    run.run()
    assert (wiring.plans_job().state.number, "403" in texts(run)) == (2, False)


def test_a_reading_whose_failure_cannot_even_be_remembered_is_not_repeated_by_every_run(connected, monkeypatch):
    def fails(*_):
        raise WarehouseError("the ledger is full")

    replace_method(monkeypatch, LimitsService, "refresh", fails)
    run = opened()
    for _ in range(2):
        wiring.plans_job().wait(20)
        run.run()
    assert "Plans could not be read: the ledger is full" in texts(run)
    assert wiring.plans_job().state.number == 1


def test_search_plan_and_order_come_from_the_address(connected):
    limits().refresh(EVERYONE)
    assert list(table(opened(find="CUS_B"))["Customer"]) == ["cus_b"]
    assert list(table(opened(limits_plan="no customer"))["Organizations"]) == ["org_none"]
    assert list(table(opened(limits_by="customer"))["Customer"]) == ["cus_a", "cus_b", "none"]
    assert len(table(opened(limits_by="nonsense", limits_plan="nonsense"))) == 3
    assert "No organization matches this search." in texts(opened(find="zzz"))


def test_the_customers_at_risk_of_the_overview_are_the_rows_its_link_shows(connected):
    limits().refresh(EVERYONE)
    run = opened(view="Overview")
    risky = next(metric.value for metric in run.metric if metric.label == "Customers at risk")
    assert risky == "1"
    assert list(table(opened(limits_at_risk="1"))["Customer"]) == ["cus_a"]


def test_totals_by_plan_stand_below(connected):
    limits().refresh(EVERYONE)
    (totals,) = [frame for frame in grids(opened()) if "Customers" in frame.columns]
    assert list(totals.iloc[0]) == ["Free", "2", "20,000", "9,820.5", "49.1 %"]


# ── notices ──────────────────────────────────────────────────────────────────────────────────────


def notices(run):
    return [frame for frame in grids(run) if "Reached" in frame.columns]


def test_open_notices_stand_first_and_are_marked_as_seen_by_name(connected):
    limits().refresh(EVERYONE)
    run = opened()
    shown, folded = notices(run)
    assert (list(shown["Reached"]), list(folded["Reached"])) == (["90 %"], ["75 %"])
    assert run.button(key="org-notices-mark").disabled
    run.button(key="org-notices-mark-all").click().run()
    assert "2 notices marked as seen." in texts(run)
    assert "No open notice." in texts(run)
    assert {one.notice.seen_by for one in limits().notices.due_notices(EVERYONE).seen} == {"admin"}
    (seen,) = notices(run)
    assert list(seen["Delivery"]) == ["no address is set", "covered by the notice of 90 %"]


def test_what_went_wrong_with_raising_is_shown(connected, monkeypatch):
    limits().refresh(EVERYONE)

    def fails(*_, **__):
        raise RuntimeError("broken")

    monkeypatch.setattr(limits().notices._books, "raise_new", fails)
    limits().notices.check_limits_quietly("cron")
    assert "could not be raised or delivered last time: Something unexpected" in texts(opened())


# ── who sees what ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["analyst", "finance"])
def test_nobody_but_admins_sees_any_of_it(connected, name):
    limits().refresh(EVERYONE)
    run = opened(name)
    assert "the admin role" in texts(run)
    assert grids(run) == []


def test_an_admin_of_one_organization_sees_its_own_part_and_no_trace_of_others(connected, monkeypatch):
    limits().refresh(EVERYONE)
    only_b = Principal("bea", Role.ADMIN, frozenset({"org_b"}))
    monkeypatch.setattr(sign_in, "_principal", lambda: only_b)
    run = opened()
    assert list(table(run)["Organizations"]) == ["org_b", "org_b"]
    assert set(table(run)["Credits"]) == {"300 of 10,000", "20 of 10,000"}
    everything = texts(run) + "".join(frame.to_csv() for frame in grids(run))
    assert not any(word in everything for word in ("org_a", "9,500.5", "9,800.5", "org_none", "90 %"))
    assert notices(run) == []
    assert not {button.key for button in run.button} & {"org-notices-mark", "org-notices-mark-all"}


def test_text_from_outside_is_shown_as_text(connected):
    with wiring.service()._ledger.engine.transaction() as writer:
        row = {"seq": 1, "organization_id": "org_a", "name": "**Bold** [x](javascript:1)", "customer_id": None}
        writer.insert("organization_directory", {**row, "changed_at": ago(1), "changed_by": "x", "source": "page"})
    limits().refresh(EVERYONE)
    run = opened(open="org_b")
    assert "\\*\\*Bold\\*\\*" in "\n".join(str(one.value) for one in run.caption)


# ── one organization ─────────────────────────────────────────────────────────────────────────────


def test_an_organizations_page_shows_a_box_per_customer(connected):
    limits().refresh(EVERYONE)
    run = opened(open="org_b")
    told = texts(run)
    assert "9,800.5 of 10,000 credits used: 98 %" in told
    assert "Shared with org_a; own part 300 credits" in told
    assert "20 of 10,000 credits used: 0.2 %" in told
    assert "Plans read from Stripe just now" in told


def test_an_organization_without_a_customer_says_so(connected):
    limits().refresh(EVERYONE)
    assert "No Stripe customer is known for this organization" in texts(opened(open="org_none"))
