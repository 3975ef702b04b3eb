"""Stored events under another card: exactly what a pull with that card would have booked, and nothing but prices."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.rating.card import RateCardFile
from billing_core.rating.events import Policy, to_events
from billing_core.rerating.rules import RERATED, CardCalendar, rerate
from tests.factories import CARD, NOON, model_usage, usage_row, usage_table
from tests.rerating.world import BY_COST, DEAR, ONLY_GPT, as_stored, card, ledger_columns, only

CARDS = (CARD, DEAR, BY_COST, ONLY_GPT, card("free", margin=Decimal("0.000001"), compute={"credits_per_minute": 0}))
KNOWN = {one.id: one for one in CARDS}
MADE_ANEW = [name for name in RERATED.names if name not in {"is_changed", "not_rerated"}]


def under(rate_card, events):
    return rerate(events, CardCalendar.of(only(rate_card)), KNOWN.get)


def one(rate_card=DEAR, *, booked=CARD, columns=None, **facts):
    events = as_stored([usage_row(**facts)], booked, **(columns or {}))
    return under(rate_card, events).to_pylist()[0]


def amounts(row):
    return [str(row[f"credits_{part}"].normalize()) for part in ("ai_tokens", "compute", "storage", "total")]


# ── literal ──────────────────────────────────────────────────────────────────────────────────────


def test_an_event_gets_the_credits_price_and_name_of_the_other_card():
    found = one(
        card("v2", margin=3, credit_price_usd="0.0001", compute={"credits_per_minute": 7}), storage_gb=Decimal(1)
    )
    assert amounts(found) == ["3E+2", "7", "5E+2", "807"]
    assert (found["credit_price_usd"], found["rate_card_version"]) == (Decimal("0.0001"), "v2")
    assert (found["is_changed"], found["not_rerated"]) == (True, None)


def test_a_card_of_the_same_prices_and_another_name_is_a_change_too():
    found = one(card("v2"))
    assert (amounts(found)[3], found["rate_card_version"], found["is_changed"]) == ("1.5E+2", "v2", True)


def test_an_excluded_environment_stays_free_and_says_why():
    found = one(environment="sdk-experiment")
    assert (amounts(found), found["flags"]) == (["0"] * 4, "excluded_environment")


def test_an_own_key_pays_no_ai_credits_under_any_card():
    found = one(ai_credentials_ownership="User")
    assert (amounts(found), found["flags"]) == (["0", "5E+1", "0", "5E+1"], "own_key")


def test_what_the_new_card_has_no_price_for_is_flagged_and_what_it_prices_is_flagged_no_more():
    claude = {"usage": [model_usage("claude", input=1000)], "models": ["claude"]}
    assert (one(ONLY_GPT, **claude)["flags"], amounts(one(ONLY_GPT, **claude))[0]) == ("unpriced", "0")
    assert (one(DEAR, booked=ONLY_GPT, **claude)["flags"], amounts(one(DEAR, booked=ONLY_GPT, **claude))[0]) == (
        "",
        "2E+2",
    )


def test_usage_that_has_no_cost_at_langfuse_stays_flagged_under_a_card_that_prices_tokens():
    facts = {"unpriced": True, "cost_usd": None, "usage": [model_usage(cost_usd=None, input=1000)]}
    assert one(DEAR, **facts)["flags"] == "unpriced"
    assert one(DEAR, booked=BY_COST, **facts)["flags"] == "unpriced"
    assert one(DEAR, booked=None, **facts)["flags"] == "unpriced"


def test_a_trace_of_which_a_part_has_no_cost_stays_flagged_as_long_as_the_card_does_not_explain_it():
    facts = {"unpriced": True, "usage": [model_usage(input=1000)]}
    assert one(DEAR, **facts)["flags"] == "unpriced"
    assert one(BY_COST, **facts)["flags"] == "unpriced"


def test_bad_usage_stays_bad_and_an_absurd_component_is_only_bad_under_the_card_that_makes_it_so():
    assert (
        one(bad_usage=True, problems=["observation 1: usage input = -1 is not a token count"])["flags"] == "bad_usage"
    )
    giant = card("giant", storage={"credits_per_gb_month": 10**5})
    KNOWN["giant"] = giant
    absurd = one(giant, storage_gb=Decimal(10**7))
    assert (amounts(absurd), absurd["flags"]) == (["1E+2", "5E+1", "0", "1.5E+2"], "bad_usage")
    back = one(CARD, booked=giant, storage_gb=Decimal(10**7))
    assert (amounts(back)[2], back["flags"]) == ("5E+9", "")


def test_a_million_dollar_trace_is_a_mistake_under_a_card_that_goes_by_cost_too():
    found = one(BY_COST, cost_usd=Decimal(2_000_000))
    assert (amounts(found)[0], found["flags"]) == ("0", "unpriced,bad_usage")
    assert not one(BY_COST, booked=BY_COST, cost_usd=Decimal(2_000_000))["is_changed"]


def test_nothing_used_is_said_again_and_unsaid_where_something_costs():
    facts = {"usage": [], "tokens_total": None, "cost_usd": Decimal(1), "latency_seconds": 0}
    assert one(DEAR, **facts)["flags"] == "no_usage"
    assert (one(BY_COST, **facts)["flags"], amounts(one(BY_COST, **facts))[0]) == ("", "2.5E+4")


def test_who_pays_and_what_was_found_out_while_reading_stays_flagged():
    assert one(customer_id=None, conflicting_attributes=True, double_count_suspect=True)["flags"] == (
        "no_customer,conflicting_attributes,double_count_suspect"
    )


# ── what keeps its credits ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("record", [{"legacy_total": Decimal(42)}, {}], ids=["with its record", "without a record"])
def test_what_the_earlier_system_billed_stays(record):
    found = one(legacy_status="processed", **record)
    assert (found["is_changed"], found["not_rerated"]) == (False, "legacy_billed")
    assert amounts(found)[3] == ("42" if record else "1.5E+2")


def test_what_was_imported_as_billed_stays():
    found = one(columns={"billed_elsewhere": [True]})
    assert (found["is_changed"], found["not_rerated"], amounts(found)[3]) == (False, "billed_elsewhere", "1.5E+2")
    assert one(columns={"billed_elsewhere": [False]})["not_rerated"] is None


@pytest.mark.parametrize("effective", [{"effective_from": NOON + timedelta(microseconds=1)}, {"effective_to": NOON}])
def test_an_event_outside_the_cards_time_keeps_its_card(effective):
    found = one(card(**effective))
    assert (found["is_changed"], found["not_rerated"], found["rate_card_version"]) == (
        False,
        "no_card_in_force",
        "builtin-1",
    )


def test_tokens_known_only_as_a_sum_cannot_be_priced_by_model():
    sum_only = {"usage": [], "tokens_total": 1000}
    found = one(DEAR, **sum_only)
    assert (found["is_changed"], found["not_rerated"]) == (False, "usage_unknown")


@pytest.mark.parametrize(
    ("rate_card", "facts"),
    [
        (BY_COST, {}),
        (DEAR, {"ai_credentials_ownership": "user"}),
        (DEAR, {"environment": "langfuse-x"}),
        (DEAR, {"tokens_total": 0}),
    ],
    ids=["a card that goes by cost", "an own key", "an excluded environment", "no tokens"],
)
def test_where_tokens_cost_nothing_by_model_their_sum_is_enough(rate_card, facts):
    assert one(rate_card, **{"usage": [], "tokens_total": 1000, **facts})["not_rerated"] is None


def test_each_event_is_rated_with_the_card_of_its_own_time():
    new_year = datetime(2027, 1, 1, tzinfo=UTC)
    file = only(card("old", margin=2), card("new", margin=3, effective_from=new_year))
    times = [new_year - timedelta(microseconds=1), new_year]
    rows = [usage_row(id=str(n), timestamp=time, ended_at=time) for n, time in enumerate(times)]
    found = rerate(as_stored(rows), CardCalendar.of(file), KNOWN.get).to_pylist()
    assert [(row["rate_card_version"], amounts(row)[0]) for row in found] == [("old", "2E+2"), ("new", "3E+2")]


def test_no_events_are_no_events():
    assert under(DEAR, as_stored([])).num_rows == 0


# ── properties ───────────────────────────────────────────────────────────────────────────────────

MODELS = st.sampled_from([None, "gpt-5", "claude", "gemini"])
TOKENS = st.sampled_from([0, 1, 7, 1000, 10**9])
COSTS = st.one_of(st.none(), st.sampled_from(["0", "0.000000000001", "0.25", "999999.5"]))


@st.composite
def usages(draw, *, consistent=True):
    """A trace; `consistent`: what is unpriced and bad about it can be told from what the ledger keeps."""
    lines = [
        model_usage(model, draw(COSTS), input=draw(TOKENS), output=draw(TOKENS))
        for model in draw(st.lists(MODELS, max_size=3, unique=True))
    ]
    costs = [line["cost_usd"] for line in lines if line["cost_usd"] is not None]
    tokens = sum(line["input"] + line["output"] for line in lines)
    missing = any(line["cost_usd"] is None and line["input"] + line["output"] for line in lines)
    bad = draw(st.booleans())
    return usage_row(
        id=draw(st.uuids()).hex,
        timestamp=NOON + draw(st.integers(0, 3)) * timedelta(days=1),
        latency_seconds=draw(st.sampled_from([0, "0.000001", 60, 86_400])),
        customer_id=draw(st.sampled_from([None, "cus_a"])),
        environment=draw(st.sampled_from([None, "production", "sdk-experiment"])),
        ai_credentials_ownership=draw(st.sampled_from([None, "platform", "user"])),
        usage=lines,
        tokens_total=tokens or None,
        cost_usd=sum(costs, Decimal(0)) if costs else None,
        storage_gb=draw(st.sampled_from([None, Decimal("0.000000000001"), Decimal(3), Decimal(10**10)])),
        unpriced=missing if consistent else draw(st.booleans()),
        bad_usage=bad,
        problems=["observation 1: not a token count"] if bad and consistent else [],
        conflicting_attributes=draw(st.booleans()),
    )


A_CARD = st.sampled_from(CARDS)
ROWS = st.lists(usages(), max_size=6, unique_by=lambda row: row["id"])
ANY_ROWS = st.lists(usages(consistent=False), max_size=6, unique_by=lambda row: row["id"])


def booked(rows, rate_card):
    usage = usage_table(rows)
    return ledger_columns(to_events(usage, [rate_card] * usage.num_rows, Policy()))


@given(rows=ROWS, before=A_CARD, after=A_CARD)
def test_it_is_what_a_pull_with_the_other_card_would_have_booked(rows, before, after):
    found = under(after, booked(rows, before)).select(MADE_ANEW)
    assert found.to_pylist() == booked(rows, after).select(MADE_ANEW).to_pylist()


@given(rows=ANY_ROWS, rate_card=A_CARD)
def test_the_same_card_changes_nothing(rows, rate_card):
    events = booked(rows, rate_card)
    found = under(rate_card, events)
    assert not any(found["is_changed"].to_pylist())
    assert found.select(MADE_ANEW).to_pylist() == events.select(MADE_ANEW).to_pylist()


@given(rows=ANY_ROWS, before=A_CARD, after=A_CARD)
def test_a_row_is_changed_where_and_only_where_something_is_different(rows, before, after):
    events = booked(rows, before)
    found = under(after, events)
    differs = [
        old != new
        for old, new in zip(events.select(MADE_ANEW).to_pylist(), found.select(MADE_ANEW).to_pylist(), strict=True)
    ]
    assert found["is_changed"].to_pylist() == differs


@given(rows=ANY_ROWS, rate_card=A_CARD, data=st.data())
def test_neither_order_nor_batches_matter(rows, rate_card, data):
    rows = [*rows, usage_row(id="legacy", legacy_status="processed"), usage_row(id="sum", usage=[])]
    events = booked(rows, CARD)
    calendar = CardCalendar.of(only(card(rate_card.id, effective_from=NOON + timedelta(days=1))))
    whole = rerate(events, calendar, KNOWN.get)
    order = pa.array(data.draw(st.permutations(range(len(rows)))), pa.int64())
    shuffled = events.take(order)
    cut = data.draw(st.integers(0, len(rows)))
    parts = [rerate(shuffled[:cut], calendar, KNOWN.get), rerate(shuffled[cut:], calendar, KNOWN.get)]
    assert pa.concat_tables(parts).to_pylist() == whole.take(order).to_pylist()


EDGE = st.integers(-3, 3)


@given(
    begins=st.lists(EDGE, min_size=1, max_size=4, unique=True),
    lengths=st.lists(st.one_of(st.none(), st.integers(1, 3)), min_size=4, max_size=4),
    at=EDGE,
)
def test_the_calendar_agrees_with_the_file_at_any_time(begins, lengths, at):
    cards, day = [], timedelta(days=1)
    ordered = sorted(begins)
    for place, (begin, length) in enumerate(zip(ordered, lengths, strict=False)):
        following = ordered[place + 1] if place + 1 < len(ordered) else begin + 9
        end = None if length is None else NOON + min(begin + length, following) * day
        cards.append(card(f"c{place}", effective_from=NOON + begin * day, effective_to=end))
    file = RateCardFile(cards=tuple(cards))
    calendar = CardCalendar.of(file)
    for time in (NOON + at * day, NOON + at * day - timedelta(microseconds=1)):
        column = pa.chunked_array([pa.array([time.replace(tzinfo=None)], pa.timestamp("us"))])
        assert calendar.cards[calendar.places(column)[0]] == file.in_force(time)
