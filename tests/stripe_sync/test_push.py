"""Pushing over real HTTP: credits reach Stripe once and only once, and every usage event shows how far it got."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest

from billing_core.access import Principal, Role
from billing_core.errors import SettingsError, UpstreamError
from billing_core.runtime import clock
from billing_core.sandbox.data.catalog import STRIPE_KEY
from billing_core.sandbox.stripe.subscriptions import edge
from billing_core.stripe.provider import StripeProvider
from billing_core.stripe_sync.pipeline import Action
from billing_core.stripe_sync.push import PushProgress, _mixed
from tests.stripe.fake import QUICK
from tests.stripe_sync.push_world import METER_EVENTS, at, use

MANY = 1_000
ADMIN = Principal("ada", Role.ADMIN)


def counts(result, *names):
    return {name: getattr(result, name) for name in names}


def outcome(result):
    """Everything that is not 0 or empty; how much was read for it is told elsewhere."""
    found = {**result.to_json(), "credits_sent": result.credits_sent, "reads_this_month": 0}
    return {name: value for name, value in found.items() if value}


def time_of(event):
    return datetime.fromtimestamp(event["timestamp"], UTC)


# ── sending ──────────────────────────────────────────────────────────────────────────────────────


def test_a_push_sends_one_meter_event_per_customer_and_hour_and_says_what_it_did(world, stripe):
    world.book(
        use("1", at(0, 10), "150.5"),
        use("2", at(0, 50), "20"),
        use("3", at(1, 10), "7"),
        use("4", at(0, 10), "30", customer="cus_b"),
    )
    assert outcome(world.push()) == {"intents": 3, "sent": 3, "confirmed": 3, "credits_sent": 207}
    assert stripe.sums() == {"cus_a": 177, "cus_b": 30}
    received = {(event["customer"], time_of(event)): event["payload"] for event in stripe.received()}
    assert received == {
        ("cus_a", at(0)): {"stripe_customer_id": "cus_a", "value": "170"},
        ("cus_a", at(1)): {"stripe_customer_id": "cus_a", "value": "7"},
        ("cus_b", at(0)): {"stripe_customer_id": "cus_b", "value": "30"},
    }


def test_a_second_push_sends_nothing(world, stripe):
    world.book(use("1", at(0, 10)))
    world.push()
    assert outcome(world.push()) == {}
    assert stripe.posts() == 1


def test_by_event_every_usage_event_is_a_meter_event_at_its_own_time(world, stripe):
    world.reopen(BILLING_PUSH_GRANULARITY="event")
    world.book(use("1", at(0, 10, 7.25), "150"), use("2", at(0, 50), "20"))
    assert counts(world.push(), "sent", "credits_sent") == {"sent": 2, "credits_sent": 170}
    received = sorted((time_of(event), event["payload"]["value"]) for event in stripe.received())
    assert received == [(at(0, 10, 7), "150"), (at(0, 50), "20")]


def test_an_hour_is_split_where_the_customers_billing_period_begins(world, stripe):
    stripe.switch(anchors={"cus_a": int(at(0, 17, 5).timestamp())})
    world.book(use("before", at(0, 17, 4), "10"), use("at the edge", at(0, 17, 5), "20"), use("after", at(0, 50), "40"))
    world.push()
    received = sorted((time_of(event), event["payload"]["value"]) for event in stripe.received())
    assert received == [(at(0), "10"), (at(0, 17, 5), "60")]


def test_the_first_usage_after_an_edge_is_not_sent_into_the_period_before_it(world, stripe):
    stripe.switch(anchors={"cus_a": int(at(0, 17, 5).timestamp())})
    world.book(use("after", at(0, 50), "40"))
    world.push()
    assert [time_of(event) for event in stripe.received()] == [at(0, 17, 5)]


def test_fractions_are_carried_to_the_next_push_and_nothing_is_rounded_up(world, stripe):
    for hour, amount in enumerate(("10.4", "10.4", "10.4")):
        world.book(use(str(hour), at(hour), amount))
        world.push()
    assert [event["payload"]["value"] for event in stripe.received()] == ["10", "10", "11"]


def test_less_than_a_credit_waits_as_pending_with_the_flag_carried(world, stripe):
    world.book(use("1", at(0), "0.4"))
    assert outcome(world.push()) == {}
    event = world.events()["1"]
    assert (event.sync_status, list(event.flags), event.sync_error) == ("pending", ["carried"], None)
    world.book(use("2", at(1), "0.6"))
    world.push()
    assert world.statuses() == {"1": "confirmed", "2": "confirmed"}
    assert (stripe.sums(), world.events()["1"].flags) == ({"cus_a": 1}, [])


def test_usage_is_sent_once_it_has_settled(world, stripe):
    world.book(use("1", at(6) - timedelta(hours=1), latency_seconds=60))
    world.reopen(BILLING_SETTLE_MINUTES="180")
    assert outcome(world.push()) == {}
    world.wait(hours=3)
    assert counts(world.push(), "sent") == {"sent": 1}


def test_without_a_time_to_settle_everything_that_ended_is_sent(world, stripe):
    world.book(use("1", clock.now() - timedelta(seconds=30)))
    assert outcome(world.push()) == {}
    world.reopen(BILLING_SETTLE_MINUTES="0")
    assert counts(world.push(), "sent") == {"sent": 1}


def test_what_the_earlier_system_billed_is_never_sent(world, stripe):
    world.book(use("1", at(0), legacy_status="processed", legacy_total=Decimal(100)))
    assert (outcome(world.push()), stripe.posts(), world.statuses()) == ({}, 0, {"1": "processed"})


# ── how far an event got ─────────────────────────────────────────────────────────────────────────


def test_an_event_goes_from_pending_over_sending_and_processed_to_confirmed(world, stripe):
    stripe.switch(summary_lag_seconds=600)
    world.book(use("1", at(0)))
    seen = [world.statuses()["1"]]
    world.push(progress=lambda progress: seen.append(world.statuses()["1"]))
    seen.append(world.statuses()["1"])
    event = world.events()["1"]
    assert event.meter_event_identifier == stripe.received()[0]["identifier"]
    assert event.synced_at is not None
    world.wait(hours=1, minutes=1)
    assert outcome(world.push()) == {"confirmed": 1}
    seen.append(world.statuses()["1"])
    assert seen == ["pending", "sending", "processed", "confirmed"]
    assert stripe.posts() == 1


@pytest.mark.parametrize("what", ["unknown", "deleted"])
def test_usage_of_a_customer_stripe_does_not_have_is_an_error_and_everything_else_goes_on(world, stripe, what):
    stripe.switch(deleted_customers=["cus_b"] if what == "deleted" else [], extra_customers=["cus_a", "cus_c"])
    world.book(use("bad", at(0), customer="cus_b"), use("good", at(0)), use("also good", at(1), customer="cus_c"))
    result = world.push()
    assert counts(result, "sent", "rejected", "credits_sent") == {"sent": 2, "rejected": 1, "credits_sent": 300}
    assert world.statuses() == {"also good": "confirmed", "bad": "error", "good": "confirmed"}
    assert world.events()["bad"].sync_error.startswith("Stripe rejected it: No such customer: 'cus_b'")
    assert "cus_b" in result.failures[0]
    assert "No such customer" in result.failures[0]


def test_rejected_usage_is_not_sent_again_until_somebody_decides(world, stripe):
    world.book(use("bad", at(0), customer="cus_typo"))
    world.push()
    assert outcome(world.push()) == {}
    assert stripe.posts() == 1


def test_usage_without_a_customer_is_held_and_reported_once_as_new(world, stripe):
    world.book(use("nobody's", at(0), customer=None), use("1", at(0)))
    assert counts(world.push(), "sent", "held", "newly_held") == {"sent": 1, "held": 1, "newly_held": 1}
    assert outcome(world.push()) == {"held": 1}
    event = world.events()["nobody's"]
    assert (event.sync_status, list(event.flags)) == ("error", ["no_customer"])


# ── corrections ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("amount", "difference"), [("170.9", "20"), ("100", "-50"), ("0", "-150")])
def test_usage_that_changed_after_sending_is_corrected_by_a_meter_event_of_its_own(world, stripe, amount, difference):
    world.book(use("1", at(0), "150"))
    world.push()
    world.book(use("1", at(0), amount))
    assert counts(world.push(), "sent", "credits_sent") == {"sent": 1, "credits_sent": int(difference)}
    first, second = stripe.received()
    assert second["payload"]["value"] == difference
    assert (second["timestamp"], second["customer"]) == (first["timestamp"], first["customer"])
    assert first["identifier"] != second["identifier"]
    assert stripe.sums() == {"cus_a": int(Decimal(amount))}
    assert "changed_after_sending" in world.events()["1"].flags


def test_a_late_event_of_a_sent_hour_is_revision_2_with_its_own_identifier(world, stripe):
    world.book(use("1", at(0, 10)))
    world.push()
    world.book(use("late", at(0, 40), "20"))
    world.push()
    first, second = world.intents()
    assert (first["source"], first["revision"]) == (second["source"], 1)
    assert (second["revision"], second["value"]) == (2, 20)
    assert first["identifier"] != second["identifier"]
    assert stripe.sums() == {"cus_a": 170}


def test_usage_that_changed_its_customer_is_moved(world, stripe):
    world.book(use("1", at(0)))
    world.push()
    world.book(use("1", at(0), customer="cus_b"))
    world.push()
    assert stripe.sums() == {"cus_a": 0, "cus_b": 150}
    assert world.statuses() == {"1": "confirmed"}


@pytest.mark.parametrize("granularity", ["hour", "event"])
def test_usage_that_begins_later_than_it_did_when_it_was_sent_is_still_counted_once(world, stripe, granularity):
    world.reopen(BILLING_PUSH_GRANULARITY=granularity)
    world.book(use("1", at(0), "150"))
    world.push()
    world.book(use("1", at(2), "200", customer="cus_b"))
    world.push()
    world.book(use("1", at(2), "90"))
    world.push()
    assert stripe.sums() == {"cus_a": 90, "cus_b": 0}


# ── what may not be sent ─────────────────────────────────────────────────────────────────────────


def test_usage_older_than_35_days_is_held_and_nothing_is_re_dated(world, stripe):
    world.book(use("old", at(0) - timedelta(days=36)), use("new", at(0)))
    assert counts(world.push(), "sent", "held", "newly_held") == {"sent": 1, "held": 1, "newly_held": 1}
    assert world.statuses() == {"new": "confirmed", "old": "error"}
    assert world.events()["old"].sync_error.startswith("older than 35 days")
    assert [time_of(event) for event in stripe.received()] == [at(0)]


def test_late_usage_is_sent_while_the_invoice_of_its_period_is_a_draft(world, stripe):
    world.book(use("1", at(0)))
    end = datetime.fromtimestamp(period_end(stripe), UTC)
    world.wait(seconds=(end - stripe.now()).total_seconds() + 1200)
    assert counts(world.push(), "sent", "held") == {"sent": 1, "held": 0}
    assert [time_of(event) for event in stripe.received()] == [at(0)]


@pytest.mark.parametrize("minutes", [55, 61])
def test_usage_of_a_period_whose_invoice_is_final_or_all_but_final_is_held_with_the_reason(world, stripe, minutes):
    world.book(use("late", at(0)))
    end = datetime.fromtimestamp(period_end(stripe), UTC)
    world.wait(seconds=(end - stripe.now()).total_seconds() + 60 * minutes)
    assert counts(world.push(), "sent", "newly_held") == {"sent": 0, "newly_held": 1}
    assert "final" in world.events()["late"].sync_error
    assert stripe.posts() == 0


def period_end(stripe):
    """Unix seconds at which the current period of cus_a ends."""
    answer = stripe.control(
        "GET", "/v1/subscriptions", params={"customer": "cus_a"}, headers={"Authorization": f"Bearer {STRIPE_KEY}"}
    )
    return answer["data"][0]["items"]["data"][0]["current_period_end"]


# ── outcomes that are not known ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "how"),
    [("after_success_500", "duplicates"), ("after_success_cut", "sent"), ("after_success_timeout", "sent")],
)
def test_a_fault_after_success_is_tried_again_and_counts_once(world, stripe, kind, how):
    """Stripe repeats what it answered first (`sent`), or recognises the identifier when that answer was a failure."""
    stripe.fault(kind, times=1, seconds=0.5)
    world.book(use("1", at(0)))
    assert outcome(world.push()) == {"intents": 1, how: 1, "confirmed": 1, "credits_sent": 150}
    assert (stripe.sums(), world.statuses()) == ({"cus_a": 150}, {"1": "confirmed"})


@pytest.mark.parametrize("kind", ["after_success_cut", "reset", "html", "409"])
def test_an_outcome_that_stays_unknown_is_shown_as_sending_and_settled_by_the_next_push(world, stripe, kind):
    stripe.fault(kind, times=MANY)
    world.book(use("1", at(0)))
    result = world.push()
    assert counts(result, "sent", "unknown", "credits_sent") == {"sent": 0, "unknown": 1, "credits_sent": 0}
    assert result.problems
    assert world.statuses() == {"1": "sending"}
    stripe.no_faults()
    result = world.push()
    assert counts(result, "intents", "unknown", "credits_sent") == {"intents": 1, "unknown": 0, "credits_sent": 150}
    assert (stripe.sums(), world.statuses()) == ({"cus_a": 150}, {"1": "confirmed"})
    assert {event["identifier"] for event in stripe.received()} == {world.intents()[0]["identifier"]}


def test_an_unknown_outcome_does_not_keep_other_customers_waiting(world, stripe):
    stripe.fault("reset", times=MANY, body_contains="cus_a")
    world.book(use("1", at(0)), use("2", at(0), customer="cus_b"))
    assert counts(world.push(), "sent", "unknown") == {"sent": 1, "unknown": 1}
    assert stripe.sums() == {"cus_b": 150}


def leave_unknown(world, stripe, kind, *rows):
    """Push `rows` so that nobody knows whether they arrived."""
    stripe.fault(kind, times=MANY)
    world.book(*rows)
    world.push()
    stripe.no_faults()


def test_checklist_pusher_unknown_outcomes_older_than_20_hours_that_arrived_are_found_in_the_summary(world, stripe):
    leave_unknown(world, stripe, "after_success_cut", use("1", at(0)))
    world.wait(hours=21)
    posts = stripe.posts()
    assert counts(world.push(), "duplicates", "credits_sent", "unknown") == {
        "duplicates": 1,
        "credits_sent": 150,
        "unknown": 0,
    }
    assert (stripe.posts(), stripe.sums(), world.statuses()) == (posts, {"cus_a": 150}, {"1": "confirmed"})
    assert "Stripe's sum for the hour" in world.intents()[0]["answer"]


def test_checklist_pusher_unknown_outcomes_older_than_20_hours_that_never_arrived_are_sent_under_a_new_identifier(
    world, stripe
):
    leave_unknown(world, stripe, "reset", use("1", at(0)))
    world.wait(hours=21)
    assert counts(world.push(), "sent", "credits_sent") == {"sent": 1, "credits_sent": 150}
    first, second = world.intents()
    assert (first["state"], second["revision"], second["state"]) == ("void", 2, "accepted")
    assert [event["identifier"] for event in stripe.received()] == [second["identifier"]]
    assert world.statuses() == {"1": "processed"}  # its sum was read a moment before
    world.wait(hours=1, minutes=1)
    world.push()
    assert world.statuses() == {"1": "confirmed"}


def test_checklist_pusher_unknown_outcomes_are_never_resent_when_the_summary_cannot_tell(world, stripe):
    """Two of 150 in one hour, of which Stripe counts one: nobody can say which."""
    leave_unknown(world, stripe, "reset", use("1", at(0, 10)))
    leave_unknown(world, stripe, "reset", use("2", at(0, 20)))
    stripe.plant("cus_a", 150, at(0, 30))
    world.wait(hours=21)
    posts = stripe.posts()
    result = world.push()
    assert counts(result, "sent", "unknown") == {"sent": 0, "unknown": 2}
    assert "2 meter events were tried too long ago" in result.problems[0]
    assert (stripe.posts(), world.statuses()) == (posts, {"1": "sending", "2": "sending"})


def test_an_unknown_outcome_stays_unknown_while_somebody_elses_usage_is_in_its_hour(world, stripe):
    leave_unknown(world, stripe, "reset", use("1", at(0)))
    stripe.plant("cus_a", 7, at(0, 5))
    world.wait(hours=21)
    posts = stripe.posts()
    assert counts(world.push(), "sent", "unknown") == {"sent": 0, "unknown": 1}
    assert (stripe.posts(), world.statuses()) == (posts, {"1": "sending"})


def test_an_unknown_outcome_is_not_resolved_by_a_summary_that_may_lag_behind_its_neighbours(world, stripe):
    """150 arrived unnoticed and 150 more were accepted a moment ago: a lagging sum of 150 must not read as "lost"."""
    leave_unknown(world, stripe, "after_success_cut", use("1", at(0, 10)))
    world.wait(hours=21)
    stripe.fault("500_timeout", path_prefix="/v1/billing/meters/", times=QUICK.read_tries)  # while outcomes are told
    world.book(use("2", at(0, 20)))
    assert counts(world.push(), "sent") == {"sent": 1}
    stripe.no_faults()
    stripe.switch(summary_lag_seconds=900)
    world.wait(minutes=10)
    world.push()
    assert (stripe.sums(), world.statuses()["1"]) == ({"cus_a": 300}, "sending")
    world.wait(hours=5)
    world.push()
    assert (stripe.sums(), world.statuses()) == ({"cus_a": 300}, {"1": "confirmed", "2": "confirmed"})


# ── limits, refusals, outages ────────────────────────────────────────────────────────────────────


def test_a_rate_limit_is_obeyed_and_the_meter_event_sent_once(world, stripe):
    stripe.fault("429", times=3, retry_after=0)
    world.book(use("1", at(0)))
    assert counts(world.push(), "sent", "unknown", "waiting") == {"sent": 1, "unknown": 0, "waiting": 0}
    assert (stripe.posts(), stripe.sums()) == (4, {"cus_a": 150})


def test_what_a_lasting_rate_limit_keeps_back_waits_for_the_next_push(world, stripe):
    stripe.fault("429", times=MANY, retry_after=30)
    world.book(use("1", at(0)), use("2", at(0), customer="cus_b"))
    result = world.push()
    assert counts(result, "sent", "unknown", "waiting") == {"sent": 0, "unknown": 0, "waiting": 2}
    assert "limits the rate" in result.problems[0]
    stripe.no_faults()
    assert counts(world.push(), "sent", "waiting") == {"sent": 2, "waiting": 0}


def test_what_waited_a_day_without_being_tried_is_sent_all_the_same(world, stripe):
    stripe.fault("403", times=MANY)
    world.book(use("1", at(0)))
    assert counts(world.push(), "waiting", "unknown") == {"waiting": 1, "unknown": 0}
    stripe.no_faults()
    world.wait(hours=30)
    assert counts(world.push(), "sent") == {"sent": 1}
    assert len(world.intents()) == 1


def test_a_missing_permission_to_send_is_told_as_the_one_reason_and_nothing_is_lost(world, stripe):
    stripe.fault("403", times=MANY)
    world.book(*(use(str(n), at(0), customer=c) for n, c in enumerate(("cus_a", "cus_b", "cus_c"))))
    result = world.push()
    assert counts(result, "sent", "rejected", "waiting") == {"sent": 0, "rejected": 0, "waiting": 3}
    (reason,) = {problem.removeprefix("not tried: ") for problem in result.problems}
    assert "billing_meter_event_write" in reason
    assert set(world.statuses().values()) == {"sending"}


@pytest.mark.parametrize(
    ("kind", "path", "says"),
    [
        ("401", "/v1/billing/meters", "check STRIPE_API_KEY"),
        ("403", "/v1/billing/meters", "billing_meter_read"),
        ("html", "/v1/billing/meters", "not what Stripe's API sends (text/html)"),
        ("403", "/v1/subscriptions", "subscription_read"),
        ("403", "/v1/invoices", "invoice_read"),
    ],
)
def test_what_must_be_read_before_sending_and_cannot_be_is_one_line_and_nothing_is_sent(
    world, stripe, kind, path, says
):
    stripe.fault(kind, path_prefix=path, times=MANY)
    world.book(use("1", at(0)))
    with pytest.raises(UpstreamError) as refused:
        world.push()
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert STRIPE_KEY not in str(refused.value)
    assert (stripe.posts(), world.statuses()) == (0, {"1": "pending"})
    stripe.no_faults()
    assert counts(world.push(), "sent") == {"sent": 1}


@pytest.mark.parametrize("path", ["/v1/customers", "/v2/core/events"])
def test_what_cannot_be_read_and_is_not_needed_for_sending_is_said_and_stops_nothing(world, stripe, path):
    stripe.fault("403", path_prefix=path, times=MANY)
    world.book(use("1", at(0)))
    result = world.push()
    assert counts(result, "sent") == {"sent": 1}
    assert len(result.problems) == 1


def test_a_stripe_that_cannot_be_reached_is_one_line(world, stripe):
    world.reopen(STRIPE_API_BASE="http://127.0.0.1:1")
    world.book(use("1", at(0)))
    with pytest.raises(
        UpstreamError, match=r"^Stripe: reading the meters failed \(no answer\): it could not be reached"
    ):
        world.push()


# ── the wrong meter, the wrong account ───────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("meters", "says"),
    [
        ([{"status": "inactive"}], "it is inactive"),
        ([{"default_aggregation": {"formula": "count"}}], "aggregates by count; credits need sum"),
        ([{"event_time_window": "hour"}], "events of one hour overwrite each other"),
        ([{"value_settings": {"event_payload_key": "tokens"}}], "it reads stripe_customer_id and tokens"),
        ([{"customer_mapping": {"event_payload_key": "customer"}}], "it reads customer and value"),
        ([{}, {"id": "mtr_2"}], "2 meters with the event name 'credits'"),
        ([{"event_name": "tokens"}], "no meter with the event name 'credits'"),
        ([], "no meter with the event name 'credits'"),
        ([{"livemode": True}], "is in live mode"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_checklist_pusher_refuses_to_start_with_a_wrong_meter(world, stripe, meters, says):
    stripe.switch(meters=meters)
    world.book(use("1", at(0)))
    with pytest.raises(SettingsError) as refused:
        world.push()
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert (stripe.posts(), world.intents(), world.statuses()) == (0, [], {"1": "pending"})


def test_a_deactivated_meter_beside_the_active_one_does_no_harm(world, stripe):
    stripe.switch(meters=[{"id": "mtr_old", "status": "inactive"}, {}])
    world.book(use("1", at(0)))
    assert counts(world.push(), "sent") == {"sent": 1}


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_key_for_another_account_is_refused_because_sent_there_is_not_sent_here(world, stripe, dry_run):
    world.book(use("1", at(0)))
    world.push()
    stripe.switch(meters=[{"id": "mtr_of_another_account"}])
    world.book(use("2", at(1)))
    with pytest.raises(SettingsError) as refused:
        world.push(dry_run=dry_run)
    assert "mtr_of_another_account" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert stripe.posts() == 1


def test_without_a_key_there_is_no_push(world, stripe):
    world.reopen(STRIPE_API_KEY="")
    with pytest.raises(SettingsError, match=r"^STRIPE_API_KEY: not set"):
        world.push()


# ── rejections that come later ───────────────────────────────────────────────────────────────────

LATER = "meter_event_customer_not_found"


@pytest.mark.parametrize("shape", [{}, {"old_error_shape": True}, {"report_idempotency_key": True}], ids=str)
def test_checklist_pusher_error_events_are_polled_and_turn_processed_into_error_with_the_reason(world, stripe, shape):
    stripe.switch(async_errors={"cus_a": LATER}, **shape)
    world.book(use("1", at(0)), use("2", at(0), customer="cus_b"))
    assert counts(world.push(), "sent", "rejected") == {"sent": 2, "rejected": 0}
    assert world.statuses() == {"1": "processed", "2": "confirmed"}
    result = world.push()
    assert counts(result, "sent", "rejected") == {"sent": 0, "rejected": 1}
    assert LATER in result.failures[0]
    assert world.statuses() == {"1": "error", "2": "confirmed"}
    assert world.events()["1"].sync_error == (
        f"Stripe rejected it after accepting it ({LATER}): The customer of the event does not exist."
    )


def test_checklist_pusher_error_codes_nobody_knows_are_surfaced(world, stripe):
    stripe.switch(async_errors={"cus_a": "meter_event_on_a_sunday"})
    world.book(use("1", at(0)))
    world.push()
    world.push()
    assert "meter_event_on_a_sunday" in world.events()["1"].sync_error
    assert [problem.cause for problem in world.desk.problems(ADMIN)] == ["meter_event_on_a_sunday"]


def test_checklist_pusher_errors_reported_without_a_name_are_said(world, stripe):
    stripe.switch(async_errors={"cus_a": LATER}, error_sample_cap=1)
    world.book(use("1", at(0)), use("2", at(1)), use("3", at(2)))
    world.push()
    result = world.push()
    assert sorted(world.statuses().values()) == ["error", "processed", "processed"]
    (problem,) = result.problems
    assert LATER in problem
    assert "3" in problem
    assert "1" in problem


def test_a_report_is_counted_once_however_often_it_is_read(world, stripe):
    stripe.switch(async_errors={"cus_a": LATER})
    world.book(use("1", at(0)))
    world.push()
    assert world.push().rejected == 1
    assert world.push().rejected == 0


def test_a_report_that_was_read_by_a_push_that_was_killed_is_not_lost(world, stripe, monkeypatch):
    stripe.switch(async_errors={"cus_a": LATER})
    world.book(use("1", at(0)))
    world.push()

    def killed(*given, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("billing_core.ledger.sync.SyncStore.settle", killed)
        with pytest.raises(KeyboardInterrupt):
            world.push()
    world.wait(hours=5)
    assert (world.push().rejected, world.statuses()) == (1, {"1": "error"})


def test_usage_rejected_later_is_sent_again_only_after_a_retry_and_as_a_new_revision(world, stripe):
    stripe.switch(async_errors={"cus_a": LATER})
    world.book(use("1", at(0)))
    world.push()
    world.push()
    stripe.switch(async_errors={})
    assert counts(world.push(), "sent") == {"sent": 0}
    world.desk.decide(ADMIN, world.desk.preview(ADMIN, Action.RETRY))
    world.wait(hours=1)
    assert counts(world.push(), "sent") == {"sent": 1}
    assert [(row["revision"], row["state"]) for row in world.intents()] == [(1, "rejected"), (2, "confirmed")]
    assert stripe.sums() == {"cus_a": 150}


# ── confirming ───────────────────────────────────────────────────────────────────────────────────


def test_a_summary_that_counts_something_else_confirms_nothing(world, stripe):
    world.book(use("1", at(0, 10)), use("2", at(1, 10)))
    stripe.switch(summary_lag_seconds=600)
    world.push()
    stripe.plant("cus_a", 7, at(0, 5))
    world.wait(hours=1)
    assert world.push().confirmed == 1
    assert world.statuses() == {"1": "processed", "2": "confirmed"}


def test_what_stripe_lost_is_not_confirmed(world, stripe):
    stripe.switch(summary_lag_seconds=600)
    world.book(use("1", at(0)))
    world.push()
    stripe.lose(stripe.received()[0]["identifier"])
    world.wait(hours=2)
    assert (world.push().confirmed, world.statuses()) == (0, {"1": "processed"})


def test_summaries_that_cannot_be_read_are_said_and_cost_no_status(world, stripe):
    world.book(use("1", at(0)))
    world.push()
    world.wait(hours=1)
    stripe.fault("500_timeout", path_prefix="/v1/billing/meters/", times=MANY)
    world.book(use("2", at(0, 10)))
    result = world.push()
    assert counts(result, "sent", "confirmed") == {"sent": 1, "confirmed": 0}
    assert (len(result.problems), world.statuses()["2"]) == (1, "processed")


# ── looking before sending ───────────────────────────────────────────────────────────────────────


def test_checklist_pusher_a_dry_run_shows_the_exact_bodies_sends_nothing_and_stores_nothing(world, stripe):
    world.book(
        use("1", at(0), "150.5"),
        use("2", at(0), "20", customer="cus_b"),
        use("late", at(0) - timedelta(days=36)),
        use("nobody's", at(0), customer=None),
        use("fraction", at(0), "0.5", customer="cus_c"),
    )
    before = world.content()
    result = world.push(dry_run=True)
    assert (world.content(), stripe.posts()) == (before, 0)
    assert result.is_dry_run
    assert counts(result, "intents", "held", "newly_held", "sent") == {
        "intents": 2,
        "held": 2,
        "newly_held": 2,
        "sent": 0,
    }
    world.push()
    sent = {
        event["identifier"]: {
            "method": "POST",
            "path": METER_EVENTS,
            "idempotency_key": event["idempotency_key"],
            "body": {name: event[name] for name in ("event_name", "identifier", "timestamp", "payload")},
        }
        for event in stripe.received()
    }
    assert {request["body"]["identifier"]: dict(request) for request in result.requests} == sent


def test_a_dry_run_shows_what_an_earlier_push_left_open(world, stripe):
    leave_unknown(world, stripe, "reset", use("1", at(0)))
    before = world.content()
    result = world.push(dry_run=True)
    assert [request["body"]["identifier"] for request in result.requests] == [world.intents()[0]["identifier"]]
    assert world.content() == before


def test_a_dry_run_does_not_offer_to_resend_what_is_too_old_to_be_recognised(world, stripe):
    leave_unknown(world, stripe, "reset", use("1", at(0)))
    world.wait(hours=21)
    result = world.push(dry_run=True)
    assert (result.requests, result.unknown) == ((), 1)


def test_a_dry_run_twice_says_the_same(world, stripe):
    world.book(use("1", at(0)), use("2", at(1), customer="cus_b"))
    assert world.push(dry_run=True).to_json() == world.push(dry_run=True).to_json()


# ── crashes ──────────────────────────────────────────────────────────────────────────────────────


def test_checklist_pusher_the_frozen_row_and_the_attempt_are_committed_before_any_call(world, stripe):
    """A Stripe that looks into the ledger, through a connection of its own, at the moment it is called."""
    found = []

    class Watching:
        def __init__(self, sink):
            self.sink = sink

        def send(self, events):
            for event in events:
                query = f"""SELECT state, value, stamp, customer_id, attempts, first_attempt_at IS NOT NULL
                            FROM intents WHERE identifier = '{event.identifier}'"""
                (row,) = world.rows(query)
                found.append((*row, event.value, event.timestamp))
            yield from self.sink.send(events)

        def close(self):
            self.sink.close()

    class Watched(StripeProvider):
        def sink(self, *given):
            return Watching(super().sink(*given))

    world.connect = lambda settings: Watched.from_settings(settings, QUICK)
    world.book(use("1", at(0)))
    world.push()
    stamp = at(0).replace(tzinfo=None)
    assert found == [("sending", 150, stamp, "cus_a", 1, True, 150, at(0))]


def test_checklist_pusher_a_push_that_was_interrupted_goes_on_where_it_stopped(world, stripe):
    world.book(*(use(f"{c}{n}", at(n), "10", customer=f"cus_{c}") for c in "abc" for n in range(4)))

    def interrupt(progress):
        if progress.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.push(progress=interrupt)
    assert world.desk.pushes(ADMIN)[0].outcome == "failed"
    result = world.push()
    assert result.sent + result.duplicates == 12 - 5
    assert stripe.sums() == {"cus_a": 40, "cus_b": 40, "cus_c": 40}
    assert set(world.statuses().values()) == {"confirmed"}


def test_intents_written_down_and_never_tried_are_sent_by_the_next_push_with_the_same_bytes(world, stripe):
    world.book(use("1", at(0)))
    shown = world.push(dry_run=True).requests[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("billing_core.ledger.sync.SyncStore.mark_attempt", _killed)
        with pytest.raises(KeyboardInterrupt):
            world.push()
    assert [row["state"] for row in world.intents()] == ["open"]
    world.book(use("2", at(0, 5)))  # the same hour: not in the frozen one
    world.push()
    first = stripe.received()[0] if stripe.received()[0]["identifier"] == shown["body"]["identifier"] else None
    values = sorted((event["identifier"], event["payload"]["value"]) for event in stripe.received())
    assert (shown["body"]["identifier"], "150") in values
    assert first is None or first["payload"]["value"] == "150"
    assert stripe.sums() == {"cus_a": 300}


def _killed(*given, **more):
    raise KeyboardInterrupt


def test_intents_never_tried_are_withdrawn_when_they_have_become_too_late(world, stripe):
    world.book(use("1", at(0)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("billing_core.ledger.sync.SyncStore.mark_attempt", _killed)
        with pytest.raises(KeyboardInterrupt):
            world.push()
    world.wait(days=36)
    assert counts(world.push(), "sent", "newly_held") == {"sent": 0, "newly_held": 1}
    assert (stripe.posts(), world.statuses()) == (0, {"1": "error"})
    assert [row["state"] for row in world.intents()] == ["void"]


# ── journals ─────────────────────────────────────────────────────────────────────────────────────


def audited(world):
    rows = world.rows("SELECT actor, action, detail FROM audit WHERE action = 'push' ORDER BY seq")
    return [(actor, json.loads(detail)) for actor, _, detail in rows]


def test_every_push_is_in_the_audit_log_with_who_how_many_and_the_hash_of_what_was_written_down(world, stripe):
    world.book(use("1", at(0)), use("2", at(0), customer="cus_typo"))
    world.push()
    ((actor, detail),) = audited(world)
    assert actor == "tester"
    assert {name: detail[name] for name in ("outcome", "sent", "rejected", "credits_sent")} == {
        "outcome": "done",
        "sent": 1,
        "rejected": 1,
        "credits_sent": "150",
    }
    assert len(detail["sha256"]) == 64
    (run,) = world.desk.pushes(ADMIN)
    assert (run.actor, run.outcome, run.result["sent"], run.error) == ("tester", "done", 1, None)


def test_a_push_that_failed_is_in_the_audit_log_with_the_reason(world, stripe):
    stripe.fault("403", path_prefix="/v1/subscriptions", times=MANY)
    world.book(use("1", at(0)))
    with pytest.raises(UpstreamError):
        world.push()
    ((_, detail),) = audited(world)
    assert detail["outcome"] == "failed"
    assert "subscription_read" in detail["error"]
    assert world.desk.pushes(ADMIN)[0].error == detail["error"]


def test_a_dry_run_is_in_no_log(world, stripe):
    world.book(use("1", at(0)))
    world.push(dry_run=True)
    assert (audited(world), world.desk.pushes(ADMIN)) == ([], [])


def test_progress_tells_answered_meter_events_of_all_and_credits_so_far(world, stripe):
    world.book(use("1", at(0)), use("2", at(1), "20"))
    seen = []
    world.push(progress=seen.append)
    assert [(p.done, p.total) for p in seen] == [(1, 2), (2, 2)]
    assert seen[-1] == PushProgress(2, 2, 170, "sending")


# ── order ────────────────────────────────────────────────────────────────────────────────────────


def test_meter_events_of_many_customers_are_mixed_so_that_none_waits_for_another():
    names = ["cus_a"] * 4 + ["cus_b"] * 2 + ["cus_c"]
    table = pa.table({"customer_id": names, "n": list(range(7))})
    (batch,) = _mixed(table)
    assert batch["customer_id"].to_pylist() == ["cus_a", "cus_b", "cus_c", "cus_a", "cus_b", "cus_a", "cus_a"]
    assert batch["n"].to_pylist() == [0, 4, 6, 1, 5, 2, 3]


def test_every_meter_event_is_in_exactly_one_batch():
    table = pa.table({"customer_id": [f"cus_{n % 7}" for n in range(1300)], "n": list(range(1300))})
    batches = list(_mixed(table))
    assert [batch.num_rows for batch in batches] == [512, 512, 276]
    assert sorted(n for batch in batches for n in batch["n"].to_pylist()) == list(range(1300))
    assert list(_mixed(table.slice(0, 0))) == []


# ── what an examiner found ───────────────────────────────────────────────────────────────────────


def test_newly_held_events_are_named_with_the_reason(world):
    world.book(use("nobody's", at(0), customer=None), use("old", at(-24 * 40)))
    found = world.push()
    assert found.newly_held == 2
    assert [text.split(":")[0] for text in found.failures] == ["event nobody's is held", "event old is held"]
    assert "older than 35 days" in found.failures[1]
    assert world.push().failures == ()


def test_a_preview_names_what_would_be_held_and_holds_nothing(world):
    world.book(use("nobody's", at(0), customer=None))
    assert world.push(dry_run=True).failures[0].startswith("event nobody's is held")
    assert world.rows("SELECT count(*) FROM holds") == [(0,)]


def test_one_customer_whose_sum_cannot_be_read_keeps_nobody_else_from_being_confirmed(world, stripe):
    stripe.switch(summary_lag_seconds=600)
    world.book(*(use(c, at(0), customer=f"cus_{c}") for c in "abc"))
    world.push()
    world.wait(hours=1)
    stripe.fault("404_html", path_prefix="/v1/billing/meters/", times=MANY, body_contains="cus_a")
    found = world.push()
    assert (found.confirmed, len(found.problems)) == (2, 1)
    assert world.statuses() == {"a": "processed", "b": "confirmed", "c": "confirmed"}


def test_a_server_without_lists_of_subscriptions_and_invoices_is_sent_to_all_the_same_and_it_is_said(world, stripe):
    stripe.fault("404_html", path_prefix="/v1/subscriptions", times=MANY)
    stripe.fault("404_html", path_prefix="/v1/invoices", times=MANY)
    world.book(use("1", at(0)))
    found = world.push()
    assert (found.sent, len(found.problems)) == (1, 2)


def test_a_correction_that_may_not_be_sent_is_a_problem_of_its_own(world, stripe):
    world.book(use("1", at(0), "150"))
    world.push()
    world.wait(days=36)
    world.book(use("1", at(0), "100"))
    assert world.push().newly_held == 1
    (problem,) = world.desk.problems(ADMIN)
    assert (problem.cause, problem.amounts.events, problem.amounts.credits) == ("correction_held", 1, Decimal(-50))
    assert "older than 35 days" in problem.example
    assert world.statuses() == {"1": "confirmed"}


# ── what an attacker found ───────────────────────────────────────────────────────────────────────


@pytest.fixture
def slow(monkeypatch):
    """A push that takes long: one intent per batch, and time passes after the first."""
    monkeypatch.setattr("billing_core.stripe_sync.push.BATCH", 1)

    def wait_once(world, **duration):
        waits = [duration]
        return lambda _progress: world.wait(**waits.pop()) if waits else None

    return wait_once


def test_a_long_push_does_not_resend_what_stripe_forgets_meanwhile(world, stripe, slow):
    world.book(use("old", at(1), "100", customer="cus_b"))
    stripe.fault("after_success_cut", times=MANY)
    world.push()
    stripe.no_faults()
    world.wait(hours=19, minutes=30)
    world.book(use("new", at(0), "7", customer="cus_a"))
    world.push(progress=slow(world, hours=5))
    assert stripe.sums() == {"cus_a": 7, "cus_b": 100}


def test_a_long_push_does_not_send_into_an_invoice_that_becomes_final_meanwhile(world, stripe, slow):
    """The period ended 45 minutes ago: its invoice stays a draft for another fifteen."""
    ended = int((stripe.now() - timedelta(minutes=45)).timestamp())
    stripe.switch(anchors={"cus_a": int(at(-240).timestamp()), "cus_b": edge(ended, -12)})
    world.book(use("1", at(0), "7", customer="cus_a"), use("late", at(1), "100", customer="cus_b"))
    found = world.push(progress=slow(world, minutes=20))
    assert (found.sent, found.waiting, stripe.sums()) == (1, 1, {"cus_a": 7})
    assert world.push().newly_held == 1
    assert world.statuses() == {"1": "confirmed", "late": "error"}
    assert stripe.sums() == {"cus_a": 7}


def test_no_outcome_is_read_from_sums_while_rejections_cannot_be_heard(world, stripe):
    """A sum may lack what was rejected since; without the reports that looks like an event that never arrived."""
    world.book(use("1", at(0), "150"))
    stripe.fault("after_success_cut", times=MANY)
    world.push()
    stripe.no_faults()
    world.wait(hours=26)
    stripe.fault("403", path_prefix="/v2/core/events", times=MANY)
    world.push()
    assert world.statuses() == {"1": "sending"}
    stripe.no_faults()
    world.push()
    assert world.statuses() == {"1": "confirmed"}


def test_a_correction_waits_while_it_is_unknown_whether_the_first_part_arrived(world, stripe):
    world.book(use("1", at(0), "150"))
    stripe.fault("reset", times=MANY)
    world.push()
    stripe.no_faults()
    stripe.fault("reset", times=MANY, body_contains="150")
    world.book(use("1", at(0), "170"))
    world.push()
    assert (world.statuses(), stripe.sums()) == ({"1": "sending"}, {})
    stripe.no_faults()
    world.push()
    world.push()
    assert stripe.sums() == {"cus_a": 170}


def test_an_event_whose_mark_of_the_earlier_system_is_gone_waits_for_a_decision(world, stripe):
    world.book(use("1", at(0), "150", legacy_status="processed", legacy_total=Decimal(100)))
    world.push()
    world.book(use("1", at(0), "150"))
    assert world.push().newly_held == 1
    assert world.statuses() == {"1": "error"}
    assert "mark" in world.events()["1"].sync_error
    assert stripe.posts() == 0


def test_an_event_on_its_way_to_its_new_customer_says_so_while_the_give_back_is_held(world, stripe, monkeypatch):
    stripe.switch(profiles={"cus_b": "no_subscription"})
    world.book(use("1", at(0), "150"))
    world.push()
    world.wait(days=25)
    world.book(use("1", at(0), "150", customer="cus_b"))
    monkeypatch.setattr("billing_core.ledger.sync.SyncStore.mark_attempt", _killed)
    with pytest.raises(KeyboardInterrupt):
        world.push()
    assert world.statuses() == {"1": "sending"}


def _killed(*_arguments, **_names):
    raise KeyboardInterrupt


def test_a_passport_says_nothing_of_the_other_organizations_an_intent_covers(world):
    world.reopen(BILLING_PUSH_GRANULARITY="event")
    world.book(
        use("mine", at(0), "0.4", organization_id="org_a"), use("theirs", at(0, 5), "7", organization_id="org_b")
    )
    world.push()
    viewer = Principal("viewer", Role.ANALYST, frozenset({"org_a"}))
    shown = json.dumps(world.service.explain("mine", viewer).to_json()["steps"])
    assert "theirs" not in shown
    assert world.intents()[0]["identifier"] in shown
