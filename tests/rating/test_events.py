from datetime import UTC, datetime
from decimal import Decimal

import pytest

from billing_core.rating.events import (
    EVENT_SCHEMA,
    NO_CUSTOMER,
    RATED_FLAGS,
    BookedCustomer,
    Policy,
    failed_before,
    in_order,
    no_customer,
    to_events,
)
from billing_core.types import Flag
from tests.factories import CARD, events_table, model_usage, usage_row, usage_table


def event(policy=None, card=CARD, **facts):
    return to_events(usage_table([usage_row(**facts)]), [card], policy or Policy()).to_pylist()[0]


def test_an_ordinary_trace_is_pending_without_flags():
    found = event()
    assert (found["sync_status"], found["sync_error"], found["flags"]) == ("pending", None, [])
    assert (found["credits_total"], found["rate_card_version"]) == (Decimal(150), "builtin-1")
    assert found["latency_seconds"] == Decimal(60)


def test_no_customer_is_an_error_that_says_so():
    found = event(customer_id=None)
    assert (found["sync_status"], found["sync_error"], found["flags"]) == ("error", NO_CUSTOMER, ["no_customer"])


def test_the_default_customer_is_billed_only_for_traces_that_name_none():
    policy = Policy(default_customer_id="cus_default")
    assert event(policy, customer_id=None)["customer_id"] == "cus_default"
    assert event(policy, customer_id="cus_a")["customer_id"] == "cus_a"
    assert event(policy, customer_id=None)["flags"] == []


def test_override_bills_everything_to_the_default_customer():
    policy = Policy(default_customer_id="cus_default", override_customer_id=True)
    assert event(policy, customer_id="cus_a")["customer_id"] == "cus_default"


@pytest.mark.parametrize("environment", ["langfuse-llm-as-a-judge", "sdk-experiment"])
def test_an_excluded_environment_is_kept_with_0_credits_and_the_reason(environment):
    found = event(environment=environment)
    assert (found["sync_status"], found["flags"], found["credits_total"]) == ("excluded", ["excluded_environment"], 0)
    assert found["tokens_total"] == 1000


@pytest.mark.parametrize("environment", [None, "production", "my-langfuse-copy"])
def test_other_environments_are_billed(environment):
    assert event(environment=environment)["sync_status"] == "pending"


def test_an_own_key_is_flagged_and_pays_compute_only():
    found = event(ai_credentials_ownership="user")
    assert (found["flags"], found["credits_ai_tokens"], found["credits_total"]) == (["own_key"], 0, 50)


def test_nothing_to_bill_is_excluded_and_a_flag_says_why():
    found = event(usage=[], tokens_total=None, latency_seconds=0)
    assert (found["sync_status"], found["flags"]) == ("excluded", ["no_usage"])
    own = event(ai_credentials_ownership="user", latency_seconds=0)
    assert (own["sync_status"], own["flags"]) == ("excluded", ["own_key"])


def test_usage_langfuse_has_no_price_for_is_flagged_but_rated_by_tokens():
    found = event(unpriced=True, cost_usd=None, usage=[model_usage(input=1000, cost_usd=None)])
    assert (found["flags"], found["credits_ai_tokens"], found["cost_usd"]) == (["unpriced"], 100, None)


def test_without_a_card_in_force_an_event_is_unpriced_never_silently_free():
    found = event(card=None)
    assert (found["flags"], found["credits_total"], found["rate_card_version"]) == (["unpriced"], 0, "none")


def test_a_trace_the_earlier_system_billed_keeps_its_recorded_credits_and_is_processed():
    found = event(
        legacy_status="processed", legacy_ai_tokens=Decimal("12.5"), legacy_compute=Decimal(3), legacy_total=Decimal(99)
    )
    assert (found["sync_status"], found["flags"]) == ("processed", ["legacy_billed"])
    assert [found[f"credits_{n}"] for n in ("ai_tokens", "compute", "storage", "total")] == [
        Decimal("12.5"),
        Decimal(3),
        Decimal(0),
        Decimal("15.5"),
    ]
    assert found["rate_card_version"] == "legacy"


def test_a_record_that_names_only_a_total_keeps_the_total():
    found = event(legacy_status="processed", legacy_total=Decimal(42))
    assert (found["credits_ai_tokens"], found["credits_total"]) == (42, 42)


def test_a_processed_trace_without_a_record_is_rated_and_never_sent_again():
    found = event(legacy_status="processed")
    assert (found["sync_status"], found["credits_total"], found["rate_card_version"]) == ("processed", 150, "builtin-1")


def test_a_processed_trace_needs_no_customer():
    found = event(legacy_status="processed", customer_id=None)
    assert (found["sync_status"], found["flags"]) == ("processed", ["no_customer", "legacy_billed"])


def test_what_stripe_refused_before_is_an_error_with_its_words():
    found = event(legacy_error="No such customer: 'cus_x'")
    assert (found["sync_status"], found["sync_error"]) == ("error", "No such customer: 'cus_x'")


def test_an_old_refusal_is_forgotten_once_it_was_processed():
    found = event(legacy_status="processed", legacy_error="No such customer")
    assert (found["sync_status"], found["sync_error"]) == ("processed", None)


def test_a_million_dollar_trace_is_a_mistake_its_cost_is_unknown():
    found = event(cost_usd=Decimal(2_000_000))
    assert (found["cost_usd"], found["flags"]) == (None, ["bad_usage"])


def test_flags_stand_in_the_published_order():
    found = event(customer_id=None, bad_usage=True, conflicting_attributes=True, ai_credentials_ownership="user")
    assert found["flags"] == ["own_key", "no_customer", "bad_usage", "conflicting_attributes"]


def test_each_row_is_rated_with_the_card_beside_it():
    dear = CARD.model_copy(update={"id": "dear", "credit_price_usd": Decimal(1)})
    rows = [usage_row(id=str(n)) for n in range(4)]
    found = to_events(usage_table(rows), [CARD, dear, None, CARD], Policy())
    assert found["id"].to_pylist() == ["0", "1", "2", "3"]
    assert found["rate_card_version"].to_pylist() == ["builtin-1", "dear", "none", "builtin-1"]
    assert found["credits_total"].to_pylist() == [150, 150, 0, 150]


@pytest.mark.parametrize("has_error", [True, False, None])
def test_whether_something_failed_is_handed_on_and_costs_nothing(has_error):
    found = event(has_error=has_error)
    assert (found["has_error"], found["credits_total"], found["flags"]) == (has_error, 150, [])


def test_an_empty_batch_is_an_empty_batch():
    assert events_table([]).schema == EVENT_SCHEMA
    assert to_events(usage_table([]), [], Policy()).num_rows == 0


def test_nothing_is_re_dated():
    start = datetime(2026, 10, 31, 23, 59, 59, 999000, tzinfo=UTC)
    found = event(timestamp=start, latency_seconds=0.5)
    assert found["timestamp"] == start


# ── who pays ─────────────────────────────────────────────────────────────────────────────────────

MAP = {"org_a": "cus_m"}


def test_a_trace_that_names_no_customer_is_billed_to_the_one_its_organization_is_mapped_to():
    found = event(Policy(customers=MAP), customer_id=None)
    assert (found["customer_id"], found["sync_status"], found["flags"]) == ("cus_m", "pending", ["mapped_customer"])


@pytest.mark.parametrize(
    ("policy", "facts", "payer"),
    [
        (Policy("cus_d", True, customers=MAP), {}, "cus_d"),
        (Policy("cus_d", True, customers=MAP), {"customer_id": None}, "cus_d"),
        (Policy("cus_d", customers=MAP), {}, "cus_a"),
        (Policy("cus_d", customers=MAP), {"customer_id": None}, "cus_m"),
        (Policy("cus_d", customers=MAP), {"customer_id": None, "organization_id": "org_b"}, "cus_d"),
        (Policy("cus_d", customers=MAP), {"customer_id": None, "organization_id": None}, "cus_d"),
        (Policy(customers=MAP), {"customer_id": None, "organization_id": "org_b"}, None),
    ],
)
def test_override_trace_directory_default_nobody_pay_in_this_order(policy, facts, payer):
    found = event(policy, **facts)
    assert found["customer_id"] == payer
    assert ("mapped_customer" in found["flags"]) == (payer == "cus_m")
    assert ("no_customer" in found["flags"]) == (payer is None)


def test_an_event_on_a_bill_stays_with_its_customer_as_long_as_its_trace_names_none():
    rows = [
        usage_row(id=id_, customer_id=named) for id_, named in [("1", None), ("2", None), ("3", None), ("4", "cus_t")]
    ]
    booked = {
        "1": BookedCustomer("cus_old", True),
        "2": BookedCustomer("cus_old", False),
        "3": BookedCustomer(None, False),
        "4": BookedCustomer("cus_old", True),
    }
    found = to_events(usage_table(rows), [CARD] * 4, Policy("cus_d", customers=MAP), booked)
    assert found["customer_id"].to_pylist() == ["cus_old", "cus_old", None, "cus_t"]
    assert found["flags"].to_pylist() == [["mapped_customer"], [], ["no_customer"], []]


def test_without_a_customer_the_earlier_systems_error_is_not_forgotten():
    found = event(customer_id=None, legacy_error="card declined")
    assert found["sync_error"] == no_customer("card declined")
    assert failed_before(found["sync_error"]) == "card declined"
    assert failed_before(event(customer_id=None)["sync_error"]) is None


def test_every_flag_of_rating_has_its_place():
    ledgers_own = {
        Flag.CARRIED,
        Flag.CHANGED_AFTER_SENDING,
        Flag.LATE_AFTER_CLOSE,
        Flag.POLICY_DIFFERS,
        Flag.SENT_ELSEWHERE,
        Flag.MISSING_AT_SOURCE,
        Flag.WRITTEN_OFF,
        Flag.INVOICED_SEPARATELY,
    }
    assert set(RATED_FLAGS) == set(Flag) - ledgers_own
    assert in_order(["mapped_customer", "own_key"]) == ["own_key", "mapped_customer"]


def test_policies_with_different_maps_differ():
    assert Policy(customers=MAP) != Policy()
    assert hash(Policy(customers=MAP)) == hash(Policy(customers=dict(MAP)))
