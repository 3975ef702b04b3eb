"""What people do with Stripe, through the one door: who may, what is shown of a customer, what a explanation tells."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing_core.access import Principal, Role
from billing_core.errors import AccessDenied, BadParameter, NotFound, SettingsError
from billing_core.ingest.pull import book_rated
from billing_core.organizations.directory_file import Change
from billing_core.rating.events import Policy
from billing_core.runtime import clock
from billing_core.stripe_sync.pipeline import Action, Amounts, DecisionPreview
from billing_core.types import GetUsageEventsParams, PipelineStage
from tests.examples import examples
from tests.factories import CARD, EVERYONE, usage_table
from tests.stripe_sync.push_world import CUSTOMERS, World, at, use

ADMIN = Principal("ada", Role.ADMIN)
FINANCE = Principal("fay", Role.FINANCE)
ANALYST = Principal("ann", Role.ANALYST)
LIMITED = {role: Principal(f"limited {role}", role, frozenset({"org_a"})) for role in Role}
MANY = 1_000


def reads(stripe):
    """Paths of the GET requests so far."""
    return [call["path"] for call in stripe.control("GET", "/_sandbox/requests") if call["method"] == "GET"]


# ── who may ──────────────────────────────────────────────────────────────────────────────────────

READS = {
    "pipeline": lambda desk, who: desk.pipeline(who),
    "problems": lambda desk, who: desk.problems(who),
    "next_deadline": lambda desk, who: desk.next_deadline(who),
    "pushes": lambda desk, who: desk.pushes(who),
    "preview": lambda desk, who: desk.preview(who, Action.RETRY),
    "retry_outlook": lambda desk, who: desk.retry_outlook(who, DecisionPreview(Action.RETRY, Amounts(), ())),
    "status": lambda desk, who: desk.status(who, "cus_a"),
    "last_status": lambda desk, who: desk.last_status(who, "cus_a"),
}
WRITES = {
    "push": lambda desk, who: desk.push(who),
    "push --dry-run": lambda desk, who: desk.push(who, dry_run=True),
    "decide": lambda desk, who: desk.decide(who, desk.preview(ADMIN, Action.HOLD), reason="dispute"),
}


@pytest.mark.parametrize("who", [ANALYST, *LIMITED.values()], ids=lambda who: who.name)
def test_analysts_and_whoever_is_limited_to_organizations_see_and_do_nothing_here(world, stripe, who):
    world.book(use("1", at(0)))
    for ask in (*READS.values(), *WRITES.values()):
        with pytest.raises(AccessDenied):
            ask(world.desk, who)
    assert (stripe.posts(), world.statuses()) == (0, {"1": "pending"})


def test_finance_reads_and_may_neither_push_nor_decide(world, stripe):
    world.book(use("1", at(0)))
    for ask in READS.values():
        ask(world.desk, FINANCE)
    for ask in WRITES.values():
        with pytest.raises(AccessDenied, match="this needs the admin role"):
            ask(world.desk, FINANCE)
    assert (stripe.posts(), world.statuses()) == (0, {"1": "pending"})


# ── status ───────────────────────────────────────────────────────────────────────────────────────


def status(world, customer="cus_a"):
    return world.desk.status(FINANCE, customer).to_json()


@pytest.mark.parametrize(
    ("profile", "state", "plan", "included"),
    [
        ("pro", "active", "Pro", "500000"),
        ("free", "active", "Free", "10000"),
        ("past_due", "past_due", "Pro", "500000"),
        ("trialing", "trialing", "Pro", "500000"),
        ("canceled", "canceled", "Pro", "500000"),
        ("unknown_price", "active", None, None),
        ("flat_fee_only", "active", "Pro", "500000"),
    ],
)
def test_the_status_is_stripes_own_and_the_plan_that_of_a_price_the_card_names(
    world, stripe, profile, state, plan, included
):
    stripe.switch(profiles={"cus_a": profile})
    found = status(world)
    assert (found["state"], found["plan"], found["credits"]["included"]) == (state, plan, included)
    assert found["problem"] is None
    assert found["read_at"] is not None


def test_period_used_credits_and_the_upcoming_invoice_are_those_of_the_metered_item(world, stripe):
    world.book(use("1", at(0)))
    world.push()
    found = status(world)
    assert found["period"]["start"] == at(-240).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert datetime.fromisoformat(found["period"]["end"]) > stripe.now()
    assert found["credits"]["used"] == "150"
    assert found["upcoming_invoice"] == {"amount_due": 2001, "currency": "usd"}


def test_a_canceled_subscription_has_no_upcoming_invoice_and_what_was_used_is_read_from_the_sums(world, stripe):
    world.book(use("1", at(0)))
    world.push()
    stripe.switch(profiles={"cus_a": "canceled"})
    found = status(world)
    assert (found["upcoming_invoice"], found["credits"]["used"]) == (None, "150")


def test_a_customer_without_a_subscription_has_none(world, stripe):
    stripe.switch(profiles={"cus_a": "no_subscription"})
    found = status(world)
    assert (found["state"], found["plan"], found["credits"]) == ("none", None, {"included": None, "used": None})
    assert (found["period"], found["upcoming_invoice"]) == ({"start": None, "end": None}, None)


def test_a_deleted_customer_is_told_as_deleted(world, stripe):
    stripe.switch(deleted_customers=["cus_a"])
    found = status(world)
    assert (found["state"], found["problem"]) == ("none", "the customer cus_a was deleted at Stripe")


def test_a_customer_stripe_does_not_know_is_not_found(world):
    for customer in ("cus_typo", "", ".", "..", "../invoices", "cus_a/../cus_b", "cus_a?x=1", "cus ü\n"):
        with pytest.raises(NotFound) as refused:
            status(world, customer)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["403", "html", "429"])
def test_checklist_status_a_failed_read_is_unknown_with_what_was_read_last_and_never_a_billing_state(
    world, stripe, kind
):
    good = status(world)
    stripe.fault(kind, path_prefix="/v1/subscriptions", times=MANY, retry_after=30)
    world.wait(hours=3)
    found = status(world)
    assert found["state"] == "unknown"
    assert found["problem"].startswith("Stripe: ")
    assert {**found, "state": "active", "problem": None} == good


def test_a_failed_first_read_knows_nothing_at_all(world, stripe):
    stripe.fault("500_timeout", path_prefix="/v1/subscriptions", times=MANY)
    found = status(world)
    assert (found["state"], found["plan"], found["read_at"]) == ("unknown", None, None)
    assert found["credits"] == {"included": None, "used": None}


def test_an_outage_does_not_overwrite_what_was_read_last(world, stripe):
    good = status(world)
    stripe.fault("500_timeout", path_prefix="/v1/subscriptions", times=MANY)
    status(world)
    assert world.desk.last_status(FINANCE, "cus_a").to_json() == good


def test_the_last_status_is_told_without_asking_stripe(world, stripe):
    assert world.desk.last_status(FINANCE, "cus_a") is None
    status(world)
    before = reads(stripe)
    assert world.desk.last_status(FINANCE, "cus_a").state == "active"
    assert reads(stripe) == before


def test_an_invoice_preview_that_cannot_be_read_leaves_the_rest_known(world, stripe):
    stripe.fault("403", path_prefix="/v1/invoices/create_preview", times=MANY)
    found = status(world)
    assert (found["state"], found["plan"], found["upcoming_invoice"]) == ("active", "Pro", None)
    assert found["credits"]["used"] == "0"
    assert "invoice_read" in found["problem"]


def test_a_wrong_meter_keeps_nobody_from_seeing_a_subscription(world, stripe):
    stripe.switch(meters=[{"status": "inactive"}])
    found = status(world)
    assert (found["state"], found["plan"]) == ("active", "Pro")
    assert "it is inactive" in found["problem"]


def test_checklist_status_the_period_is_that_of_an_item_and_all_items_are_read(world, stripe):
    stripe.switch(subscription_items_page=1)
    world.book(use("1", at(0)))
    world.push()
    found = status(world)
    assert (found["plan"], found["credits"]["used"]) == ("Pro", "150")
    assert found["period"]["start"] is not None


def test_without_a_key_there_is_no_status(world):
    world.reopen(STRIPE_API_KEY="")
    with pytest.raises(SettingsError, match="STRIPE_API_KEY: not set"):
        status(world)


# ── reads are rationed ───────────────────────────────────────────────────────────────────────────


def test_checklist_status_subscriptions_are_read_in_one_sweep_and_previews_remember_them_for_a_minute(world, stripe):
    world.book(*(use(c, at(0), customer=f"cus_{c}") for c in "abc"))
    world.push()
    assert reads(stripe).count("/v1/subscriptions") == 1
    world.book(use("late", at(1)))
    world.push(dry_run=True)
    assert reads(stripe).count("/v1/subscriptions") == 1
    world.wait(minutes=2)
    world.push(dry_run=True)
    assert reads(stripe).count("/v1/subscriptions") == 2


def test_a_push_that_sends_trusts_no_reading_of_the_periods_older_than_five_minutes(world, stripe):
    world.book(use("1", at(0)))
    world.push()
    stripe.switch(anchors=dict.fromkeys(("cus_a", "cus_b", "cus_c"), int(at(1).timestamp())))
    world.book(use("late", at(0, 30), customer="cus_b"))
    world.book(use("now", at(2), customer="cus_b"))
    stripe.switch(profiles={"cus_b": "canceled"})
    world.wait(minutes=5, seconds=1)
    found = world.push()
    assert reads(stripe).count("/v1/subscriptions") == 2
    assert found.sent + found.newly_held == 2


def test_what_was_read_before_a_billing_period_ended_is_read_anew_at_once(world, stripe):
    stripe.switch(anchors={"cus_a": int((stripe.now() - timedelta(days=20)).timestamp())})
    world.book(use("1", at(0)))
    world.push()
    end = max(i.period_end for s in world.desk._snapshots.read("subscription") for i in _items(s))
    world.wait(seconds=(end - stripe.now()).total_seconds() - 20)
    world.book(use("2", at(1)))
    world.push()
    before = reads(stripe).count("/v1/subscriptions")
    world.wait(seconds=30)
    world.book(use("3", at(2)))
    world.push()
    assert reads(stripe).count("/v1/subscriptions") == before + 1


def _items(stored):
    import msgspec

    from billing_core.stripe.model import Subscription

    found = msgspec.json.decode(stored.content, type=Subscription)
    return found.items if found.customer_id == "cus_a" else ()


def test_a_push_without_anything_to_send_reads_no_subscriptions(world, stripe):
    world.book(use("nobody's", at(0), customer=None))
    assert world.push().newly_held == 1
    assert "/v1/subscriptions" not in reads(stripe)


def test_the_next_deadline_is_the_draft_that_becomes_final_first(world, stripe):
    assert world.desk.next_deadline(FINANCE) is None
    soon, later = stripe.now() - timedelta(minutes=40), stripe.now() - timedelta(minutes=10)
    month_ago = {"cus_a": _month_before(later), "cus_b": _month_before(soon)}
    stripe.switch(anchors={customer: int(time.timestamp()) for customer, time in month_ago.items()})
    world.book(use("1", at(0)))
    world.push()
    deadline = world.desk.next_deadline(FINANCE)
    assert deadline.customer_id == "cus_b"
    assert abs(deadline.finalizes_at - (soon + timedelta(hours=1))) < timedelta(seconds=2)


def _month_before(time):
    """The same moment of the latest earlier month that has such a day: a period that began then ends at `time`."""
    first = time.replace(day=1)
    while True:
        first = (first - timedelta(days=1)).replace(day=1)
        with suppress(ValueError):
            return first.replace(day=time.day)


# ── decisions ────────────────────────────────────────────────────────────────────────────────────


def test_a_hold_needs_a_reason_because_somebody_will_ask(world):
    world.book(use("1", at(0)))
    preview = world.desk.preview(ADMIN, Action.HOLD)
    with pytest.raises(BadParameter, match="a few words on why"):
        world.desk.decide(ADMIN, preview, reason="  \n ")
    assert world.statuses() == {"1": "pending"}


def test_a_reason_is_kept_as_one_line_of_bearable_length(world):
    world.book(use("1", at(0)))
    world.desk.decide(ADMIN, world.desk.preview(ADMIN, Action.HOLD), reason="in\n dispute " + "x" * 1000)
    error = world.events()["1"].sync_error
    assert error.startswith("on hold by ada: in dispute xxx")
    assert len(error) < 330


# ── explanations ────────────────────────────────────────────────────────────────────────────────────


def explanation(world, id_, who=EVERYONE):
    """The last step of an event's explanation: summary and lines."""
    step = world.service.explain(id_, who).steps[-1]
    assert step.name == "Stripe"
    return step.summary, "\n".join(step.lines)


def test_a_passport_tells_the_intent_the_attempts_stripes_answer_and_what_stripe_counts(world, stripe):
    world.book(use("1", at(0, 10), "150.25"), use("2", at(0, 20), "20.5", organization_id="org_b"))
    world.push()
    (intent,) = world.intents()
    summary, lines = explanation(world, "1")
    assert summary == "confirmed: Accepted, and Stripe's own summary agrees."
    hour = f"{at(0):%Y-%m-%dT%H:%M:%SZ}"
    assert f"meter event {intent['identifier']} (customer cus_a, from {hour}, revision 1)" in lines
    assert "it carries 150.25 credits of this event" in lines
    assert "2 events, 170.75 credits + 0 carried before = 170 whole credits sent, 0.75 carried on" in lines
    assert "1 attempt, " in lines
    assert "request req_test_" in lines
    assert "Stripe counts 170 credits for the customer in that UTC hour, read " in lines


def test_a_passport_tells_every_correction_in_order(world, stripe):
    world.book(use("1", at(0), "150"))
    world.push()
    world.book(use("1", at(0), "100"))
    world.push()
    _, lines = explanation(world, "1")
    first, second = world.intents()
    assert lines.index(first["identifier"]) < lines.index(second["identifier"])
    assert "-50 credits + 0 carried before = -50 whole credits sent" in lines


def test_a_passport_tells_why_stripe_rejected_it(world, stripe):
    world.book(use("1", at(0), customer="cus_typo"))
    world.push()
    summary, lines = explanation(world, "1")
    assert summary == "error: Not sent."
    assert "revision 1): rejected" in lines
    assert "No such customer: 'cus_typo'" in lines


def test_a_passport_tells_of_an_outcome_nobody_knows(world, stripe):
    stripe.fault("reset", times=MANY)
    world.book(use("1", at(0)))
    world.push()
    summary, lines = explanation(world, "1")
    assert summary == "sending: An intent is written; Stripe's answer is not known yet."
    assert "tried, the outcome is not known" in lines
    assert "4 attempts" in lines
    assert "Stripe counts" not in lines


def test_a_passport_counts_no_attempt_that_was_never_made(world, stripe):
    stripe.fault("403", times=MANY)
    world.book(*(use(str(n), at(n)) for n in range(3)))
    world.push()
    assert sorted(row["attempts"] for row in world.intents()) == [0, 0, 1]


def test_a_passport_of_an_unsent_event_names_no_meter_event(world):
    world.book(use("1", at(0)))
    assert explanation(world, "1") == ("pending: Not sent yet.", "")


def test_whoever_is_limited_to_an_organization_sees_its_own_part_and_no_totals_of_others(world, stripe):
    world.book(use("mine", at(0, 10), "150.25"), use("theirs", at(0, 20), "4321.5", organization_id="org_b"))
    world.push()
    for who in LIMITED.values():
        _, lines = explanation(world, "mine", who)
        assert "it carries 150.25 credits of this event" in lines
        for total in ("4471", "4321", "0.75", "2 events", "Stripe counts", "whole credits"):
            assert total not in lines
        with pytest.raises(NotFound):
            world.service.explain("theirs", who)


def test_a_passport_keeps_the_sum_of_an_older_hour_when_newer_hours_are_read(world, stripe):
    world.book(use("1", at(0)))
    world.push()
    world.book(use("2", at(3), "20"))
    world.push()
    world.wait(hours=1, minutes=1)  # a customer's sums are looked at once an hour
    world.push()
    _, newer = explanation(world, "2")
    assert "Stripe counts 20 credits" in newer


def test_amounts_of_a_preview_are_exact(world):
    world.book(use("1", at(0), "0.000001"), use("2", at(0), "0.1"))
    amounts = world.desk.preview(FINANCE, Action.HOLD).amounts
    assert (amounts.events, amounts.credits) == (2, Decimal("0.100001"))
    assert amounts.amount_usd == Decimal("0.00000400004")


def test_nobody_is_pushing_when_nobody_is(world):
    assert not world.desk.is_pushing()
    seen = []
    world.book(use("1", at(0)))
    world.push(progress=lambda progress: seen.append(world.desk.is_pushing()))
    assert (seen, world.desk.is_pushing()) == ([True], False)


def test_connected_is_who_has_a_key_or_a_stripe_of_its_own(world, tmp_path, stripe):
    assert world.desk.is_connected
    from billing_core.service import BillingService
    from billing_core.settings import load_settings

    without = BillingService(load_settings({**world.environment, "STRIPE_API_KEY": ""}, env_file=None))
    assert not without.stripe.is_connected
    without.close()


def test_the_time_of_a_push_is_the_clocks(world, stripe):
    world.wait(hours=9)
    world.push()
    (run,) = world.desk.pushes(FINANCE)
    assert run.started_at - clock.now() > timedelta(hours=8)


# ── the organization map ─────────────────────────────────────────────────────────────────────────


def test_pulls_and_reconciliations_rate_by_the_map_as_it_is_by_then(world):
    map_to(world, "cus_a")
    assert world.service._policy.customers == world.desk._policy().customers == {"org_a": "cus_a"}
    map_to(world, "cus_b")
    assert world.service._policy.customers == world.desk._policy().customers == {"org_a": "cus_b"}


def test_mapped_usage_is_pushed_to_its_customer_and_stays_there(world, stripe):
    pull(world, use("1", at(0), customer=None))
    world.push()
    assert (stripe.sums(), world.statuses()) == ({}, {"1": "error"})
    map_to(world, "cus_a")
    world.push()
    map_to(world, "cus_b")
    pull(world, use("1", at(0), customer=None))
    pull(world, use("2", at(0), "20", customer=None))
    world.push()
    assert stripe.sums() == {"cus_a": 150, "cus_b": 20}


def test_a_mapped_event_says_so_in_its_passport(world):
    pull(world, use("1", at(0), customer=None))
    map_to(world, "cus_a")
    steps = {step.name: step for step in world.service.explain("1", ADMIN).steps}
    assert any(line.startswith("mapped_customer: The trace names no Stripe customer") for line in steps["Flags"].lines)
    (change,) = steps["Book"].lines
    assert "customer_id unknown → cus_a, flags no_customer → mapped_customer; was error" in change


def pull(world, *rows):
    world.book()  # registers the card
    book_rated(world.ledger, usage_table(rows), [CARD] * len(rows), Policy(), run_id="pull")


def map_to(world, customer):
    directory = world.service.organizations.directory
    directory.apply(ADMIN, directory.preview(ADMIN, [Change("org_a", None, customer)]))


# ── what a retry would send ──────────────────────────────────────────────────────────────────────


def retry(world):
    """What is said a retry would send, and the push that follows the retry."""
    preview = world.desk.preview(EVERYONE, Action.RETRY)
    outlook = world.desk.retry_outlook(EVERYONE, preview)
    world.desk.decide(EVERYONE, preview)
    return outlook, world.push()


def test_to_ask_what_a_retry_would_send_changes_nothing(world):
    world.book(use("old", at(-24 * 40), "100"), use("new", at(-2), "70"))
    world.push()
    preview, before = world.desk.preview(EVERYONE, Action.RETRY), world.content()
    world.desk.retry_outlook(EVERYONE, preview)
    after = world.content()
    for table in ("events", "event_revisions", "intents", "coverage", "holds", "audit", "bookings", "pushes"):
        assert after[table] == before[table], table


def test_a_retry_says_what_the_next_push_then_sends(world, stripe):
    world.book(*(use(f"old-{day}", at(-24 * 36 - 24 * day), "100") for day in range(3)), use("new", at(-2), "70"))
    world.book(use("fraction", at(-2), "0.25", customer="cus_b"))
    with world.ledger.engine.transaction() as writer:  # as an earlier system left them
        writer.rows("UPDATE events SET sync_status = 'error', sync_error = 'card declined'")
        writer.advance("test")
    world.push()
    outlook, pushed = retry(world)
    assert (outlook.sent.events, outlook.sent.credits) == (1, Decimal(70))
    assert (outlook.waiting.events, outlook.waiting.credits) == (1, Decimal("0.25"))
    assert {cause: (a.events, a.credits) for cause, a in outlook.held.items()} == {"too_old": (3, Decimal(300))}
    assert (pushed.sent, pushed.credits_sent, pushed.newly_held, pushed.held) == (1, 70, 3, 3)


@settings(max_examples=examples(8), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(-24 * 45, -1), st.integers(1, 4000), st.sampled_from(CUSTOMERS)), max_size=6))
def test_a_retry_never_promises_what_the_push_does_not_send(tmp_path_factory, stripe, usage):
    stripe.reset()
    world = World(tmp_path_factory.mktemp("retry"), stripe)
    try:
        rows = [
            use(f"e{n}", at(hours), str(Decimal(amount) / 100), who) for n, (hours, amount, who) in enumerate(usage)
        ]
        world.book(*rows)
        with world.ledger.engine.transaction() as writer:
            writer.rows("UPDATE events SET sync_status = 'error', sync_error = 'card declined'")
            writer.advance("test")
        world.push()
        outlook, _ = retry(world)
        sent = [event for event in world.events().values() if event.sync_status in {"processed", "confirmed"}]
        assert outlook.sent.events == len(sent)
        assert outlook.sent.credits == sum((event.credits.total for event in sent), Decimal(0))
        held = [event for event in world.events().values() if event.sync_status == "error"]
        assert sum(amounts.events for amounts in outlook.held.values()) == len(held)
        assert outlook.waiting.events == len(rows) - len(sent) - len(held)
    finally:
        world.close()


def test_tiles_preview_result_and_log_count_what_is_held_alike(world):
    world.book(use("nobody", at(-2), customer=None), use("old", at(-24 * 40)), use("fine", at(-2)))

    def held():
        stages = world.desk.pipeline(EVERYONE).stages
        return stages[PipelineStage.HELD].events

    before = held()
    preview, result = world.push(dry_run=True), world.push()
    log = world.desk.pushes(EVERYONE, 1)[0].result
    assert (preview.held, preview.newly_held) == (result.held, result.newly_held) == (2, 2)
    assert (log["held"], log["newly_held"]) == (2, 2)
    assert held() == before + result.newly_held == result.held - result.held_corrections
    again = world.push()
    assert (again.held, again.newly_held, held()) == (2, 0, 2)


def test_every_figure_of_the_pipeline_is_a_filter_of_usage_events(world, stripe):
    """What Stripe Sync counts, Usage Events lists, by the same words."""
    world.book(
        use("nobody", at(-2), customer=None),
        use("old", at(-24 * 40)),
        use("typo", at(-2), customer="cus_typo"),
        use("sent", at(-2)),
        use("before", at(-2), "2", legacy_status="processed", legacy_total=Decimal(2)),
    )
    world.push()
    world.book(use("disputed", at(-1)), use("waiting", at(-1), customer="cus_b"), use("unseen", at(-1), customer=None))
    disputed = DecisionPreview(Action.HOLD, Amounts(1), ("disputed",))
    world.desk.decide(ADMIN, disputed, reason="in dispute")

    def listed(**filters):
        found = world.service.get_usage_events(GetUsageEventsParams.parse(filters), EVERYONE)
        return Amounts(found.pagination.total_items, found.totals.credits.total, found.totals.amount_usd)

    stages = world.desk.pipeline(EVERYONE).stages
    assert listed(held=True) == stages[PipelineStage.HELD]
    assert listed(held=True).events > 0
    for stage in (PipelineStage.PENDING, PipelineStage.ERROR, PipelineStage.EXCLUDED):
        assert listed(status=str(stage), held="false") == stages[stage], stage
    assert listed(status="error").events > stages[PipelineStage.ERROR].events > 0
    assert {stage: listed(stage=str(stage)) for stage in stages} == stages
    assert listed(stage="billed_before").events == 1
    problems = {one.cause: one.amounts for one in world.desk.problems(EVERYONE)}
    assert {"no_customer", "too_old", "on_hold"} < set(problems)
    assert {cause: listed(cause=cause) for cause in problems} == problems
    assert listed(cause=["too_old", "on_hold"]).events == 2
    assert listed(cause="nothing_like_it").events == 0
    world.desk.decide(ADMIN, DecisionPreview(Action.RELEASE, Amounts(1), ("disputed",)), reason="settled")
    assert listed(cause="on_hold").events == 0


def test_a_correction_that_is_held_is_found_by_its_cause(world):
    world.book(use("1", at(0), "150"))
    world.push()
    world.book(use("1", at(0), "400"))
    world.wait(days=36)
    world.push()
    (problem,) = [one for one in world.desk.problems(EVERYONE) if one.cause == "correction_held"]
    found = world.service.get_usage_events(GetUsageEventsParams(cause="correction_held"), EVERYONE)
    assert [event.id for event in found.events] == ["1"]
    assert problem.amounts.events == 1
    world.book(use("1", at(0), "150"))  # nothing is owed any more, although nobody has released it
    assert not [one for one in world.desk.problems(EVERYONE) if one.cause == "correction_held"]
    assert world.service.get_usage_events(GetUsageEventsParams(cause="correction_held"), EVERYONE).events == []
    world.book(use("1", at(0), "400"))
