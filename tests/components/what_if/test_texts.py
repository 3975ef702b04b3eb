from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.errors import RateCardError
from billing_core.rating.card import RateCard, RateCardFile, builtin_cards, parse_rate_cards
from billing_core.rerating.model import CardVersion, NotRerated, OrganizationDelta, PlanCrossing, Rerating, ToSend
from components.what_if import texts
from components.what_if.cards import LARGEST_CHARACTERS, cards_of
from components.what_if.texts import (
    applied_text,
    apply_sentences,
    card_text,
    cards_line,
    confirms,
    crossing_rows,
    csv_lines,
    kept_rows,
    organization_rows,
    tie_text,
    tiles,
    to_send_text,
    total_line,
    unknown_plans_text,
    verdict_text,
    version_rows,
    window_text,
)

BERLIN, UTC_ZONE = ZoneInfo("Europe/Berlin"), ZoneInfo("UTC")
AT = datetime(2026, 11, 3, 8, tzinfo=UTC)
ORGANIZATIONS = (
    OrganizationDelta("=org", 1000, 900, Decimal(1000), Decimal("1200.5"), Decimal("0.04"), Decimal("0.04802")),
    OrganizationDelta(None, 2, 1, Decimal(10), Decimal(5), Decimal("0.0004"), Decimal("0.0002")),
)
CROSSING = PlanCrossing("cus_a", ("org_a", "org_b"), None, 10000, Decimal(9990), Decimal("10100.5"), AT, AT)
FOUND = Rerating(
    None,
    None,
    {"dearer": "ab" * 32},
    ORGANIZATIONS,
    1002,
    901,
    (CROSSING,),
    3,
    ToSend(5, Decimal("-12.5"), 1),
    {NotRerated.LEGACY_BILLED: 1234},
    (CardVersion("builtin-1", 1002, 0),),
    applied=False,
)
NOTHING = replace(FOUND, events_changed=0, to_send=ToSend(0, Decimal(0), 0))


# ── cards ────────────────────────────────────────────────────────────────────────────────────────


def test_the_cards_in_force_can_be_changed_as_text_and_read_back():
    text = card_text(builtin_cards())
    assert "credits_per_minute: 50\n" in text
    assert "credit_price_usd: 0.00004\n" in text
    read = parse_rate_cards(text, "text")
    assert (read.cards, read.plans) == (builtin_cards().cards, builtin_cards().plans)


def test_a_line_about_a_card_says_what_it_does_beyond_prices():
    rules = {
        "exclude": [{"name": "agent *"}],
        "token_classes": {"a": "input", "b": "input"},
        "units": {"searches": 10},
        "compute": {"credits_per_minute": 1, "basis": "active"},
    }
    card = RateCard.model_validate({**builtin_cards().cards[0].model_dump(), **rules})
    assert cards_line(RateCardFile(cards=(card,)), ZoneInfo("UTC")).endswith(
        "margin 1, compute by active time, leaves out 1 kind of observations, maps 2 usage keys, prices 1 other unit"
    )


RATES = st.decimals(0, 10**5, places=12, allow_nan=False).map(lambda value: value + 0)
PRICES = st.decimals(Decimal("0.000000000001"), 10**5, places=12)


@given(
    rate=RATES,
    price=PRICES,
    margin=PRICES,
    id_=st.from_regex(r"[A-Za-z0-9._-]{1,30}", fullmatch=True),
    basis=st.sampled_from(["active", "wall_clock"]),
)
def test_any_card_survives_being_written_as_text(rate, price, margin, id_, basis):
    card = builtin_cards().cards[0].model_dump()
    card |= {"id": id_, "credit_price_usd": price, "margin": margin, "effective_to": AT}
    card["compute"] = {"credits_per_minute": rate, "basis": basis}
    card |= {"units": {"web_search_*": price}, "token_classes": {"*_1h": "cache_write"}} if basis == "active" else {}
    card |= {"exclude": [{"name": "agent: *", "type": "AGENT"}]} if basis == "active" else {}
    file = RateCardFile(cards=(RateCard.model_validate(card),))
    assert parse_rate_cards(card_text(file), "text").cards[0].fingerprint() == file.cards[0].fingerprint()


def test_cards_are_told_by_id_date_and_price():
    assert cards_line(builtin_cards(), UTC_ZONE) == (
        "builtin-1: from 2000-01-01 00:00:00 (UTC), 1 credit = $0.00004, margin 1"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected a mapping"),
        ("id: [", "not readable as YAML in line 1"),
        ("id: a\n", "Field required"),
        ("a: &x 1\nb: *x\n", "uses YAML aliases"),
        ("[" * 5000, "nested too deeply"),
        ("x" * (LARGEST_CHARACTERS + 1), "at most"),
    ],
)
def test_what_is_no_card_is_refused_with_a_reason_that_names_the_file(text, says):
    with pytest.raises(RateCardError, match=r"rate card october\.yaml: ") as refused:
        cards_of(text, "october.yaml")
    assert says in str(refused.value)


# ── the answer ───────────────────────────────────────────────────────────────────────────────────


def test_the_answer_is_one_sentence_with_signed_sums():
    assert verdict_text(FOUND) == "901 of 1,002 events would change: +195.5 credits, +$0.0078."
    assert verdict_text(replace(FOUND, applied=True)).startswith("901 of 1,002 events changed")
    assert verdict_text(NOTHING) == "No event would change: these cards give the same figures as the ledger."
    assert verdict_text(replace(NOTHING, events=0)) == texts.NO_EVENTS


def test_the_period_is_told_with_its_timezone_and_open_ends():
    assert window_text(FOUND, BERLIN) == "1,002 events of all time"
    bounded = replace(FOUND, start=AT)
    assert window_text(bounded, BERLIN) == (
        "1,002 events that began from 2026-11-03 09:00:00 to now (Europe/Berlin, the end excluded)"
    )


def test_tiles_hold_the_sums_exactly():
    assert {tile.label: tile.exact for tile in tiles(FOUND)} == {
        "Would change": "901 events",
        "Old credits": "1,010",
        "New credits": "1,205.5",
        "Difference": "+195.5 credits, +19.4 %",
        "Difference in USD": "+$0.0078, +19.4 %",
    }


def test_rows_are_signed_and_add_up_to_the_last_line():
    rows = organization_rows(FOUND.organizations)
    assert rows["Organization"] == ["=org", "No organization"]
    assert rows["Difference"] == ["+200.5", "−5"]
    assert rows["Difference (USD)"] == ["+$0.0080", "−$0.0002"]
    assert total_line(FOUND) == (
        "All 2 organizations: 1,010 credits ($0.04) now, 1,205.5 ($0.05) under these cards, "
        "difference +195.5 (+$0.0078)."
    )


AMOUNTS = st.decimals(-(10**9), 10**9, places=6)


@given(st.lists(st.tuples(AMOUNTS, AMOUNTS), max_size=6))
def test_the_last_line_ties_out_to_the_last_digit(pairs):
    rows = tuple(OrganizationDelta("o", 1, 1, old, new, old, new) for old, new in pairs)
    found = replace(FOUND, organizations=rows)
    old, new = (sum((row[place] for row in pairs), Decimal(0)) for place in (0, 1))
    assert found.delta_credits == new - old
    assert tie_text(found, old).startswith("✓")
    assert not tie_text(found, old + 1).startswith("✓")


def test_the_csv_is_exact_and_runs_nothing_in_a_spreadsheet():
    lines = csv_lines(FOUND).decode().split("\r\n")
    assert lines == [
        "organization_id,events,events_changed,old,new,delta,old_usd,new_usd,delta_usd",
        "'=org,1000,900,1000,1200.5,200.5,0.04,0.04802,0.00802",
        ",2,1,10,5,-5,0.0004,0.0002,-0.0002",
        "",
    ]


def test_who_passes_a_plan_is_named_with_the_direction():
    rows = crossing_rows([CROSSING, replace(CROSSING, new_used=Decimal(5))], BERLIN)
    assert rows["What happens"] == ["▲ reaches its plan's limit", "▼ stays within its plan's limit"]
    assert rows["Organizations"] == ["org_a, org_b", "org_a, org_b"]
    assert rows["Used then"] == ["10,100.5", "5"]
    assert unknown_plans_text(FOUND).startswith("For 3 customers")
    assert unknown_plans_text(replace(FOUND, plan_limits_unknown=0)) is None


@pytest.mark.parametrize(
    ("owed", "says"),
    [
        (
            ToSend(5, Decimal("-12.5"), 1),
            "5 events of 1 customer were sent already: the next push would give back 12.5",
        ),
        (ToSend(1, Decimal(12), 1), "1 event of 1 customer was sent already: the next push would send 12 more credits"),
        (ToSend(0, Decimal(0), 0), texts.NOTHING_SENT),
    ],
)
def test_what_follows_at_stripe_is_said_with_its_direction(owed, says):
    assert to_send_text(replace(FOUND, to_send=owed)).startswith(says)


def test_events_that_keep_their_credits_stand_with_the_reason():
    assert kept_rows(FOUND) == {"Reason": ["The earlier system billed it: what it billed stays."], "Events": ["1,234"]}
    assert version_rows(FOUND) == {"Rate card": ["builtin-1"], "Events now": ["1,002"], "Events then": ["0"]}


# ── applying ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("typed", "is_enough"),
    [("901", True), (" 901 ", True), ("", False), ("90", False), ("9 01", True), ("yes", False), ("-901", False)],
)
def test_applying_needs_the_number_of_events_that_change(typed, is_enough):
    assert confirms(typed, FOUND) is is_enough


def test_a_number_may_be_typed_with_its_separators():
    assert confirms("12,345", replace(FOUND, events_changed=12345))


def test_the_confirmation_says_what_changes_what_stays_and_the_way_back():
    first, *rest = apply_sentences(FOUND)
    assert first == "901 events would get new figures: +195.5 credits, +$0.0078."
    assert rest == [texts.HISTORY_KEPT, to_send_text(FOUND), texts.WAY_BACK]


def test_the_outcome_says_what_was_booked_and_when():
    text = applied_text(replace(FOUND, applied=True), AT, BERLIN)
    assert text.startswith("Applied 2026-11-03 09:00:00: 901 events, +195.5 credits, +$0.0078. 5 events of 1 customer")
    assert applied_text(NOTHING, AT, BERLIN) == texts.NOTHING_TO_APPLY
