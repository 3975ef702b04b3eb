"""Settling what cannot be metered: who, what, how much, and what of it everybody sees."""

from decimal import Decimal
from shutil import copyfile

import pytest

from billing_core.access import Principal, Role
from billing_core.errors import AccessDenied, BadParameter, NotFound, SettingsError, UpstreamError
from billing_core.reconcile.report import Cause
from billing_core.stripe.invoice_items import InvoiceItems
from billing_core.stripe.model import Customer
from billing_core.stripe.provider import StripeProvider
from billing_core.stripe_sync.pipeline import Action
from billing_core.stripe_sync.settlement_rules import SettlementKind
from billing_core.types import PipelineStage
from tests.factories import EVERYONE
from tests.stripe_sync.push_world import World, at, use

WRITE_OFF, ITEM = SettlementKind.WRITE_OFF, SettlementKind.INVOICE_ITEM
ITEMS = "/v1/invoiceitems"
OLD = -24 * 40
"""Hours since: Stripe takes no meter event that old."""


@pytest.fixture(scope="module")
def stuck_ledger(stripe_server, tmp_path_factory):
    """Usage that is too old, of two customers and of nobody, beside usage that was sent; 1,000 credits are 0.04 USD."""
    stripe_server.reset()
    world = World(tmp_path_factory.mktemp("stuck"), stripe_server)
    world.book(
        use("old", at(OLD), "1000000"),
        use("older", at(OLD - 3), "250000.125"),
        use("theirs", at(OLD), "500000", "cus_b"),
        use("nobody's", at(OLD), "75", None),
        use("sent", at(-2), "150"),
    )
    world.push()
    world.close()
    return world.path


@pytest.fixture
def stuck(world, stripe, stuck_ledger):
    """That ledger, and what Stripe has of it."""
    world.close()
    copyfile(stuck_ledger, world.path)
    world.reopen()
    stripe.plant("cus_a", 150, at(-2))
    return world


def settle(world, *ids, kind=WRITE_OFF, reason="dispute 17", **more):
    return world.desk.settle(EVERYONE, ids, kind, reason=reason, **more)


def items(stripe, customer="cus_a"):
    found = stripe.control("GET", f"{ITEMS}?customer={customer}&limit=100", headers=BEARER)["data"]
    return [(item["amount"], item["currency"], item["invoice"]) for item in found]


BEARER = {"Authorization": "Bearer sk_test_sandbox"}


# ── write-offs ───────────────────────────────────────────────────────────────────────────────────


def test_what_is_written_off_is_owed_no_more_and_never_sent(stuck, stripe):
    done = settle(stuck, "old", "older", "theirs", "nobody's")
    assert (len(done.event_ids), done.credits) == (4, Decimal("1750075.125"))
    assert done.amount_usd == Decimal("1750075.125") * Decimal("0.00004")
    assert not done.skipped
    events = stuck.events()
    for name in ("old", "older", "theirs", "nobody's"):
        assert (events[name].sync_status, events[name].sync_error) == ("excluded", None)
        assert "written_off" in events[name].flags
    assert stuck.desk.problems(EVERYONE) == []
    result = stuck.push()
    assert (result.intents, result.held, result.newly_held) == (0, 0, 0)
    assert stripe.sums() == {"cus_a": 150}
    assert stuck.events()["old"].sync_status == "excluded"


def test_a_second_time_there_is_nothing_left_to_settle(stuck):
    settle(stuck, "old")
    before = stuck.content()
    again = settle(stuck, "old")
    assert (again.event_ids, again.skipped, again.has_failures) == ((), {"old": "written off already"}, False)
    assert stuck.content() == before


@pytest.mark.parametrize("kind", SettlementKind)
def test_a_dry_run_says_the_same_and_changes_nothing(stuck, kind):
    before = stuck.content()
    preview = settle(stuck, "old", "older", "theirs", "sent", kind=kind, dry_run=True)
    kept = ("stripe_objects", "meta")
    assert {k: v for k, v in stuck.content().items() if k not in kept} == {
        k: v for k, v in before.items() if k not in kept
    }
    done = settle(stuck, "old", "older", "theirs", "sent", kind=kind)
    assert (done.event_ids, done.credits, done.amount_usd) == (preview.event_ids, preview.credits, preview.amount_usd)
    assert [one.amount for one in done.items] == [one.amount for one in preview.items]
    assert done.skipped == preview.skipped == {"sent": "nothing is owed for it"}


def test_what_can_be_metered_or_may_have_been_is_not_settled(world, stripe):
    world.book(use("fresh", at(-1)), use("tiny", at(-1), "0.5"), use("doubtful", at(-1), customer="cus_b"))
    stripe.fault("after_success_cut", times=None)
    world.push()
    stripe.no_faults()
    world.book(use("later", at(-1)))
    done = settle(world, "later", "tiny", "doubtful", "unknown")
    assert done.event_ids == ()
    assert done.skipped == {
        "later": "it can still be sent: push, or hold it first",
        "tiny": "it is not known whether Stripe has it: push first",
        "doubtful": "it is not known whether Stripe has it: push first",
        "unknown": "no event has this id",
    }


def test_what_a_person_holds_can_be_settled(world):
    world.book(use("held", at(-1)))
    world.desk.decide_about(EVERYONE, Action.HOLD, ["held"], reason="dispute")
    assert settle(world, "held").event_ids == ("held",)
    assert world.push().intents == 0


def test_a_later_correction_owes_only_its_difference(stuck):
    settle(stuck, "old")
    stuck.book(use("old", at(OLD), "1000000", session_id="other"))
    assert stuck.events()["old"].sync_status == "excluded"
    stuck.book(use("old", at(OLD), "1001000"))
    stuck.push()
    event = stuck.events()["old"]
    assert (event.sync_status, "written_off" in event.flags) == ("error", True)
    assert settle(stuck, "old", kind=ITEM, reason="more").credits == Decimal(1000)
    assert stuck.events()["old"].sync_status == "processed"
    stuck.book(use("old", at(OLD), "400"))
    stuck.push()
    (problem,) = [one for one in stuck.desk.problems(EVERYONE) if one.cause == "correction_held"]
    assert problem.amounts.credits == Decimal(-600), "an invoice item was paid; what was written off was not"


def test_taking_a_write_off_back_puts_its_events_back_as_they_were(stuck):
    before = {name: (e.sync_status, e.sync_error, e.flags) for name, e in stuck.events().items()}
    held = stuck.rows("SELECT event_id, cause, reason, actor FROM holds WHERE released_at IS NULL ORDER BY event_id")
    done = settle(stuck, "old", "older", "theirs", "nobody's")
    for settlement in done.settlements:
        assert stuck.desk.take_back(EVERYONE, settlement, reason="they pay")[1] is None
    assert {name: (e.sync_status, e.sync_error, e.flags) for name, e in stuck.events().items()} == before
    again = "SELECT event_id, cause, reason, actor FROM holds WHERE released_at IS NULL ORDER BY event_id"
    assert stuck.rows(again) == held
    assert {one.state for one in stuck.desk.settlements(EVERYONE)} == {"taken_back"}
    assert settle(stuck, "old").event_ids == ("old",)


# ── invoice items ────────────────────────────────────────────────────────────────────────────────


def test_one_item_per_customer_and_month_is_rounded_once(stuck, stripe):
    done = settle(stuck, "old", "older", "theirs", kind=ITEM)
    assert [(one.customer_id, one.amount, one.currency) for one in done.items] == [
        ("cus_a", 5000, "usd"),
        ("cus_b", 2000, "usd"),
    ]
    assert done.items[0].to_json()["rounding"] == "-0.000005"
    assert items(stripe) == [(5000, "usd", None)]
    assert items(stripe, "cus_b") == [(2000, "usd", None)]
    event = stuck.events()["old"]
    assert (event.sync_status, event.sync_error, event.meter_event_identifier) == ("processed", None, None)
    assert "invoiced_separately" in event.flags
    assert stuck.push().intents == 0
    assert settle(stuck, "old", "older", "theirs", kind=ITEM).event_ids == ()
    assert len(items(stripe)) == 1


def test_an_item_is_confirmed_when_its_invoice_is_final_and_then_stays(stuck, stripe):
    settle(stuck, "old", kind=ITEM)
    stuck.wait(days=32)
    stuck.push()
    (settlement,) = stuck.desk.settlements(EVERYONE)
    assert (settlement.state, settlement.invoice_status) == ("confirmed", "paid")
    assert stuck.events()["old"].sync_status == "confirmed"
    stays, why = stuck.desk.take_back(EVERYONE, settlement.id, reason="too much")
    assert stays.state == "confirmed"
    assert f"its invoice {settlement.invoice_id} is paid; issue a credit note" in why


def test_an_item_is_taken_back_while_it_is_pending(stuck, stripe):
    settlement = settle(stuck, "old", kind=ITEM).settlements[0]
    before = stuck.events()["old"]
    assert stuck.desk.take_back(EVERYONE, settlement, reason="too much")[0].state == "taken_back"
    assert items(stripe) == []
    event = stuck.events()["old"]
    assert before.sync_status == "processed"
    assert (event.sync_status, event.flags) == ("error", [])
    assert stuck.desk.take_back(EVERYONE, settlement, reason="again")[0].taken_back_reason == "too much"
    assert [one.cause for one in stuck.desk.problems(EVERYONE)][:1] == ["too_old"]


@pytest.mark.parametrize(
    ("switches", "says"),
    [
        ({"deleted_customers": ["cus_a"]}, "the customer was deleted at Stripe"),
        ({"currencies": {"cus_a": "jpy"}}, "the customer pays in JPY and usage is rated in USD"),
        ({"extra_customers": ["cus_b"]}, "Stripe does not know the customer"),
    ],
)
def test_who_cannot_be_invoiced_in_dollars_is_one_line_and_the_others_go_on(stuck, stripe, switches, says):
    stripe.switch(**switches)
    before = stuck.events()["old"]
    done = settle(stuck, "old", "theirs", kind=ITEM)
    assert done.event_ids == ("theirs",)
    assert done.has_failures
    (problem,) = done.problems
    assert problem == done.skipped["old"]
    assert says in problem
    assert stuck.events()["old"] == before


def test_less_than_half_a_cent_and_negative_sums_are_not_invoiced_but_can_be_written_off(world):
    world.book(use("tiny", at(OLD), "100"), use("sent", at(-30 * 24), "500", "cus_b"))
    world.push()
    world.wait(days=10)
    world.book(use("sent", at(-30 * 24), "200", "cus_b"))
    world.push()
    done = settle(world, "tiny", "sent", kind=ITEM)
    assert (done.event_ids, done.items) == ((), ())
    small, negative = done.problems
    assert "0.004 USD is less than half a cent: write it off" in small
    assert "-0.012 USD is a negative sum" in negative
    assert "issue a credit note over 0.01 USD" in negative
    assert settle(world, "tiny", "sent", reason="credit note 3").credits == Decimal(-200)
    assert world.statuses() == {"sent": "confirmed", "tiny": "excluded"}
    assert world.desk.problems(EVERYONE) == []
    assert world.push().held == 0


def test_what_the_meter_counts_already_is_not_invoiced(stuck, stripe):
    stripe.plant("cus_a", 1_000_000, at(OLD))
    done = settle(stuck, "old", "older", "theirs", kind=ITEM)
    assert done.event_ids == ("theirs",)
    assert "Stripe counts 1000000 credits of cus_a" in done.skipped["old"]
    assert "of which 0 are known to this ledger" in done.skipped["old"]
    assert items(stripe) == []


def test_what_another_copy_of_the_ledger_invoiced_is_not_invoiced_again(stuck, stripe, tmp_path):
    (tmp_path / "copy").mkdir()
    copy = World(tmp_path / "copy", stripe)
    copy.book(use("old", at(OLD), "1000000"))
    copy.push()
    settle(stuck, "old", kind=ITEM)
    done = settle(copy, "old", kind=ITEM)
    copy.close()
    assert done.event_ids == ()
    assert "which this ledger does not know" in done.problems[0]
    assert len(items(stripe)) == 1


def test_what_stripe_refuses_leaves_everything_as_it_was(stuck, stripe, monkeypatch):
    before = stuck.events()
    monkeypatch.setattr(StripeProvider, "customer", lambda _, id_: Customer(id_, None, None, currency="usd"))
    stripe.switch(deleted_customers=["cus_a"])
    done = settle(stuck, "old", "theirs", kind=ITEM)
    assert done.event_ids == ("theirs",)
    assert done.out_of_reach is None
    assert done.problems[0].startswith(f"cus_a {at(OLD):%Y-%m}: Stripe refused the invoice item: ")
    assert stuck.events()["old"] == before["old"]
    assert sorted(one.state for one in stuck.desk.settlements(EVERYONE)) == ["refused", "settled"]


@pytest.mark.parametrize("kind", ["after_success_500", "after_success_cut", "429", "cut", "broken_json", "500_timeout"])
def test_an_item_is_there_once_whatever_answers(stuck, stripe, kind):
    stripe.fault(kind, ITEMS, times=2, body_contains="amount", retry_after=0)
    done = settle(stuck, "old", kind=ITEM)
    assert done.event_ids == ("old",)
    assert items(stripe) == [(4000, "usd", None)]
    assert stuck.events()["old"].sync_status == "processed"


@pytest.mark.parametrize(
    ("kind", "then", "found_by"),
    [
        ("after_success_500", {"minutes": 5}, "a push"),
        ("after_success_cut", {"hours": 30}, "a push"),
        ("500_timeout", {"minutes": 5}, "a settlement"),
        ("500_timeout", {"hours": 30}, "a push"),
        ("after_success_500", {"hours": 30}, "a settlement"),
    ],
)
def test_an_outcome_nobody_knows_is_found_out_by_the_next_push_or_settlement(
    stuck, stripe, monkeypatch, kind, then, found_by
):
    stripe.fault(kind, ITEMS, times=None, body_contains="amount")
    monkeypatch.setattr(InvoiceItems, "find", not_now)
    done = settle(stuck, "old", kind=ITEM)
    assert done.out_of_reach is not None
    assert [one.id for one in done.items] == [None]
    assert stuck.events()["old"].sync_status == "sending"
    assert settle(stuck, "old").skipped == {"old": "it is not known whether Stripe has it: push first"}
    monkeypatch.undo()
    stripe.no_faults()
    stuck.wait(**then)
    assert stuck.push().problems == () if found_by == "a push" else settle(stuck, "old", kind=ITEM).done_before
    assert items(stripe) == [(4000, "usd", None)]
    assert stuck.events()["old"].sync_status == "processed"
    assert [one.item_id for one in stuck.desk.settlements(EVERYONE)] == ["ii_test_000001"]


def not_now(*_):
    raise UpstreamError("Stripe: reading failed")


def test_two_pushes_and_a_settlement_never_bill_twice(stuck, stripe):
    stuck.desk.decide_about(EVERYONE, Action.RETRY, ["old"])
    assert settle(stuck, "old", kind=ITEM).skipped == {"old": "it can still be sent: push, or hold it first"}


# ── who, and what everybody sees ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "who",
    [
        Principal("ann", Role.ANALYST),
        Principal("fay", Role.FINANCE),
        Principal("ada", Role.ADMIN, frozenset({"org_a"})),
    ],
)
def test_only_admins_who_may_see_everything_settle(stuck, who):
    with pytest.raises(AccessDenied):
        stuck.desk.settle(who, ["old"], WRITE_OFF, reason="x")
    with pytest.raises(AccessDenied):
        stuck.desk.take_back(who, "any", reason="x")


def test_a_reason_and_an_existing_settlement_are_needed(stuck):
    with pytest.raises(BadParameter, match="why this usage is settled"):
        settle(stuck, "old", reason=" ")
    with pytest.raises(NotFound, match="settle --list"):
        stuck.desk.take_back(EVERYONE, "set_none", reason="x")


def test_the_explanation_tells_amount_who_and_why(stuck):
    (settlement,) = settle(stuck, "old", kind=ITEM).settlements
    (step,) = [one for one in stuck.service.explain("old", EVERYONE).steps if one.name == "Settle"]
    assert step.summary == "1000000 credits invoiced separately."
    told = "\n".join(step.lines)
    for word in (settlement, "test", "dispute 17", "40.00 USD", "ii_test_000001", "cus_a"):
        assert word in told
    stripe_step = stuck.service.explain("old", EVERYONE).steps[-1]
    assert "Billed by an invoice item" in stripe_step.summary


def test_settled_events_are_a_stage_of_their_own_and_the_sum_is_the_whole(stuck):
    whole = stuck.desk.pipeline(EVERYONE).total
    settle(stuck, "old")
    settle(stuck, "theirs", kind=ITEM)
    pipeline = stuck.desk.pipeline(EVERYONE)
    assert pipeline.stages[PipelineStage.SETTLED].credits == Decimal(1_500_000)
    assert pipeline.total == whole


def test_reconciliation_names_both(stuck):
    settle(stuck, "old")
    settle(stuck, "theirs", kind=ITEM)
    found = stuck.desk.reconcile(EVERYONE, at(OLD - 24), at(OLD + 24))
    causes = {part.cause: part.credits for row in found.rows for part in row.parts if part.step == "ledger_sent"}
    assert causes[Cause.WRITTEN_OFF] == Decimal(1_000_000)
    assert causes[Cause.INVOICED_SEPARATELY] == Decimal(500_000)
    assert found.unexplained_credits in {None, Decimal(0)}


def test_a_ledger_that_lost_a_settlement_does_not_meter_what_was_invoiced_until_somebody_says_so(
    world, stripe, tmp_path
):
    world.book(use("held", at(-1), "1000000"))
    world.desk.decide_about(EVERYONE, Action.HOLD, ["held"], reason="dispute")
    settle(world, "held", kind=ITEM)
    world.wait(hours=5)
    (tmp_path / "copy").mkdir()
    copy = World(tmp_path / "copy", stripe)
    copy.book(use("held", at(-1), "1000000"), use("later", at(9), "150"))
    preview = copy.push(dry_run=True)
    assert copy.push().newly_held == preview.newly_held == 1
    event = copy.events()["held"]
    assert "Stripe has the invoice item ii_test_000001 over 40.00 USD" in event.sync_error
    assert "sent_elsewhere" in event.flags
    assert stripe.sums() == {"cus_a": 150}
    copy.desk.decide_about(EVERYONE, Action.RELEASE, ["held"])
    copy.push()
    assert stripe.sums() == {"cus_a": 1_000_150}
    copy.close()


def test_a_key_that_may_not_read_invoice_items_still_pushes(world, stripe):
    world.book(use("1", at(-1), "150"))
    stripe.fault("403", ITEMS, times=None)
    assert world.push().sent == 1


def test_what_a_customer_pays_for_a_month_is_what_the_ledger_says_it_owes_to_the_cent(world, stripe):
    """Metered, invoiced separately and written off: Stripe's next invoice has the first two, exactly rounded."""
    world.book(
        use("metered", at(-2), "1250000"),
        use("too old", at(OLD), "1000000"),
        use("old too", at(OLD - 1), "333333.333333"),
        use("forgiven", at(OLD - 2), "500000"),
    )
    world.push()
    settle(world, "too old", "old too", kind=ITEM)
    settle(world, "forgiven")
    world.push()
    preview = stripe.control("POST", "/v1/invoices/create_preview", headers=BEARER, data={"customer": "cus_a"})
    lines = preview["lines"]["data"]
    owed = {name: event.amount_usd for name, event in world.events().items()}
    assert sum(owed.values()) == Decimal("50") + Decimal("40") + Decimal("13.33333333332") + Decimal("20")
    metered = [line["amount"] for line in lines if line["parent"]["type"] != "invoice_item_details"]
    separate = [line["amount"] for line in lines if line["parent"]["type"] == "invoice_item_details"]
    assert separate == [5333]
    assert 5000 in metered
    billed = Decimal(5000 + 5333) / 100
    (item,) = [one for one in world.desk.settlements(EVERYONE) if one.kind == ITEM]
    rounding = Decimal(5333) / 100 - item.amount_usd
    assert billed - rounding == sum(owed.values()) - owed["forgiven"]
    assert abs(rounding) <= Decimal("0.005")


def test_a_stripe_that_offers_no_list_of_items_or_customers_still_gets_one_item(stuck, stripe):
    stripe.fault("404_html", f"{ITEMS}", times=None, body_contains="created")
    stripe.fault("404_html", "/v1/customers/", times=None)
    stripe.fault("after_success_500", ITEMS, times=None, body_contains="amount")
    assert settle(stuck, "old", kind=ITEM).out_of_reach is not None
    stripe.no_faults()
    stripe.fault("404_html", f"{ITEMS}", times=None, body_contains="created")
    stuck.wait(minutes=5)
    stuck.push()
    stripe.no_faults()
    assert items(stripe) == [(4000, "usd", None)]


def test_with_a_key_of_another_account_nothing_is_taken_back_or_settled(stuck, stripe):
    (settlement,) = settle(stuck, "old", kind=ITEM).settlements
    stripe.switch(meters=[{"id": "mtr_of_another_account"}])
    with pytest.raises(SettingsError, match="meter"):
        stuck.desk.take_back(EVERYONE, settlement, reason="x")
    with pytest.raises(SettingsError, match="meter"):
        settle(stuck, "theirs", kind=ITEM)
    assert len(items(stripe)) == 1
    assert stuck.events()["old"].sync_status == "processed"


def test_an_item_on_a_void_invoice_bills_nothing_and_is_taken_back(stuck, monkeypatch):
    (settlement,) = settle(stuck, "old", kind=ITEM).settlements
    stuck.wait(days=32)
    monkeypatch.setattr(InvoiceItems, "invoice_status", lambda *_: "void")
    stuck.push()
    assert stuck.events()["old"].sync_status == "processed"
    assert stuck.desk.take_back(EVERYONE, settlement, reason="void")[0].state == "taken_back"
    assert stuck.events()["old"].sync_status == "error"
