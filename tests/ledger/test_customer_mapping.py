"""How an unsent event stands once somebody else pays for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from billing_core.ledger.customer_mapping import StatusAfterRemap, UnsentEvent, status_after_remap
from billing_core.ledger.holds import MARK_GONE
from billing_core.rating.events import NO_CUSTOMER, RATED_FLAGS, in_order, no_customer
from billing_core.types import Flag

CUSTOMER_FLAGS = {Flag.NO_CUSTOMER, Flag.MAPPED_CUSTOMER}
OTHER_FLAGS = st.sets(st.sampled_from([flag for flag in RATED_FLAGS if flag not in CUSTOMER_FLAGS]))
TEXTS = st.sampled_from(["card declined", "older than 35 days", MARK_GONE])


@st.composite
def unsent_events(draw):
    has_customer = draw(st.booleans())
    flag = Flag.MAPPED_CUSTOMER if has_customer else Flag.NO_CUSTOMER
    status = draw(st.sampled_from(["pending", "error", "excluded"] if has_customer else ["error", "excluded"]))
    error = None
    if status == "error":
        error = draw(TEXTS) if has_customer else no_customer(draw(st.sampled_from([None, "card declined"])))
    rule = draw(st.sampled_from([None, "failed_before", "too_old"] if has_customer else [None, "no_customer"]))
    return UnsentEvent(
        ",".join(in_order(draw(OTHER_FLAGS) | {flag})),
        status,
        error,
        has_customer,
        status != "excluded",
        has_customer and draw(st.booleans()),
        rule,
        draw(st.sampled_from([None, "on hold by ben: why"])),
    )


def after(event: UnsentEvent, now: StatusAfterRemap, *, has_customer: bool) -> UnsentEvent:
    """The event as it is then."""
    return UnsentEvent(
        now.flags,
        now.status,
        now.error,
        has_customer,
        event.has_credits,
        False,
        event.rule if now.stays_held else None,
        event.kept_back,
    )


@given(event=unsent_events(), is_mapped=st.booleans())
def test_one_flag_says_who_pays_and_the_others_stay_in_their_order(event, is_mapped):
    for has_customer in (True, False):
        found = status_after_remap(event, has_customer=has_customer, is_mapped=has_customer and is_mapped).flags.split(
            ","
        )
        expected = (
            {Flag.MAPPED_CUSTOMER} if has_customer and is_mapped else set() if has_customer else {Flag.NO_CUSTOMER}
        )
        assert set(filter(None, found)) & CUSTOMER_FLAGS == expected
        others = set(event.flags.split(",")) - CUSTOMER_FLAGS
        assert list(filter(None, found)) == in_order(others | expected)


@given(event=unsent_events())
def test_without_credits_nothing_is_ever_pending_and_without_a_customer_neither(event):
    mapped = status_after_remap(event, has_customer=True, is_mapped=True)
    nobody = status_after_remap(event, has_customer=False, is_mapped=False)
    assert (mapped.status == "excluded") == (nobody.status == "excluded") == (not event.has_credits)
    assert nobody.status != "pending"
    for found in (mapped, nobody):
        assert found.error is not None or found.status != "error"
        assert found.error is None or found.status != "excluded"


@given(event=unsent_events())
def test_to_lose_a_customer_and_get_one_again_changes_nothing(event):
    first = after(event, status_after_remap(event, has_customer=True, is_mapped=True), has_customer=True)
    lost = after(first, status_after_remap(first, has_customer=False, is_mapped=False), has_customer=False)
    again = status_after_remap(lost, has_customer=True, is_mapped=True)
    assert (again.flags, again.status, again.error) == (first.flags, first.status, first.error)


def mapped(status: str, error: str | None, **facts: object) -> UnsentEvent:
    rest = {"has_credits": True, "was_rejected": False, "rule": None, "kept_back": None, **facts}
    return UnsentEvent("mapped_customer", status, error, True, **rest)  # type: ignore[arg-type]


def moved(event: UnsentEvent) -> tuple[str, str | None, bool]:
    found = status_after_remap(event, has_customer=True, is_mapped=True)
    return found.status, found.error, found.stays_held


def test_what_a_rule_held_or_stripe_refused_is_tried_for_the_new_customer():
    assert moved(mapped("error", "older than 35 days", rule="too_old")) == ("pending", None, False)
    assert moved(mapped("error", "Stripe rejected it", was_rejected=True)) == ("pending", None, False)


def test_what_only_a_person_may_lift_waits_for_that_person():
    assert moved(mapped("error", "card declined")) == ("error", "card declined", False)
    assert moved(mapped("error", "card declined", rule="failed_before")) == ("error", "card declined", True)
    assert moved(mapped("error", MARK_GONE, rule="failed_before")) == ("error", MARK_GONE, True)
    assert moved(mapped("pending", "on hold by ben: why", kept_back="on hold by ben: why")) == (
        "pending",
        "on hold by ben: why",
        False,
    )


def test_a_vanished_mark_of_the_earlier_system_is_not_forgotten_for_want_of_a_customer():
    gone = status_after_remap(mapped("error", MARK_GONE, rule="failed_before"), has_customer=False, is_mapped=False)
    assert gone == StatusAfterRemap("no_customer", "error", MARK_GONE, False)
    plain = status_after_remap(mapped("pending", None), has_customer=False, is_mapped=False)
    assert plain == StatusAfterRemap("no_customer", "error", NO_CUSTOMER, False)
