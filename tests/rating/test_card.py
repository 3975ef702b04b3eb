from datetime import UTC, datetime
from decimal import Decimal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from billing_core.errors import RateCardError
from billing_core.rating.card import AiRates, builtin_cards, card_from_json, load_rate_cards
from billing_core.rating.globs import fits

SINGLE = """
id: mine-1
effective_from: 2026-01-01
credit_price_usd: 0.00005
ai: {basis: tokens, rates: [{model: "*", credits_per_1000_tokens: 80}]}
compute: {credits_per_minute: 40}
storage: {credits_per_gb_month: 300}
plans: [{name: Team, credits_per_month: 70000, stripe_price_ids: [price_1]}]
metadata: {customer: [billing.customer]}
"""


def written(tmp_path, text):
    path = tmp_path / "card.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def changed(tmp_path, **changes):
    return written(tmp_path, yaml.safe_dump({**yaml.safe_load(SINGLE), **changes}))


def test_the_built_in_card_is_the_contracts():
    card = builtin_cards().cards[0]
    assert card.credit_price_usd == Decimal("0.00004")
    assert card.ai.rates[0].credits_per_1000_tokens == 100
    assert card.compute.credits_per_minute == 50
    assert card.storage.credits_per_gb_month == 500
    assert card.margin == 1
    assert [(p.name, p.credits_per_month) for p in builtin_cards().plans] == [("Free", 10_000), ("Pro", 500_000)]


def test_a_file_with_one_card_needs_no_list(tmp_path):
    cards = load_rate_cards(written(tmp_path, SINGLE))
    assert [card.id for card in cards.cards] == ["mine-1"]
    assert cards.metadata.customer == ("billing.customer",)
    assert cards.metadata.organization == ("organizationId",)
    assert cards.plans[0].stripe_price_ids == ("price_1",)


def test_numbers_are_read_as_written_never_as_binary_floats(tmp_path):
    card = load_rate_cards(written(tmp_path, SINGLE.replace("0.00005", "0.100000000001"))).cards[0]
    assert card.credit_price_usd == Decimal("0.100000000001")


def test_more_than_twelve_decimal_places_are_refused(tmp_path):
    with pytest.raises(RateCardError, match="credit_price_usd"):
        load_rate_cards(written(tmp_path, SINGLE.replace("0.00005", "0.00000000000001")))


def test_the_card_in_force_follows_the_events_time(tmp_path):
    text = """
cards:
  - {id: a, effective_from: 2026-01-01, credit_price_usd: 1, ai: {basis: cost},
     compute: {credits_per_minute: 1}, storage: {credits_per_gb_month: 1}}
  - {id: b, effective_from: 2026-03-01T00:00:00+01:00, effective_to: 2026-06-01, credit_price_usd: 1,
     ai: {basis: cost}, compute: {credits_per_minute: 1}, storage: {credits_per_gb_month: 1}}
"""
    cards = load_rate_cards(written(tmp_path, text))

    def at(*when):
        card = cards.in_force(datetime(*when, tzinfo=UTC))
        return card and card.id

    assert at(2025, 12, 31) is None
    assert at(2026, 1, 1) == "a"
    assert at(2026, 2, 28, 22, 59) == "a"
    assert at(2026, 2, 28, 23) == "b"
    assert at(2026, 6, 1) is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"credit_price_usd": 0}, "credit_price_usd"),
        ({"credit_price_usd": -1}, "credit_price_usd"),
        ({"credit_price_usd": "free"}, "credit_price_usd"),
        ({"margin": "nan"}, "margin"),
        ({"effective_from": "soon"}, "effective_from"),
        ({"effective_to": "2025-01-01"}, "effective_to"),
        ({"ai": {"basis": "guess"}}, "basis"),
        ({"ai": {"basis": "tokens"}}, "rates are needed"),
        ({"ai": {"basis": "cost", "rates": [{"credits_per_1000_tokens": 1}]}}, "rates are needed"),
        ({"ai": {"rates": [{"token_class": "words", "credits_per_1000_tokens": 1}]}}, "token_class 'words'"),
        ({"id": "with space"}, "id"),
        ({"id": "legacy"}, "reserved"),
        ({"colour": "red"}, "colour"),
        ({"metadata": {"customers": ["x"]}}, "customers"),
    ],
)
def test_a_wrong_card_names_the_key_and_the_file(tmp_path, changes, named):
    with pytest.raises(RateCardError, match=named) as caught:
        load_rate_cards(changed(tmp_path, **changes))
    assert "card.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a", "a: [", "cards: []"])
def test_a_file_that_is_no_card_is_one_line(tmp_path, text):
    with pytest.raises(RateCardError) as caught:
        load_rate_cards(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_the_variable(tmp_path):
    with pytest.raises(RateCardError, match=r"BILLING_RATE_CARD.*nowhere.yaml"):
        load_rate_cards(tmp_path / "nowhere.yaml")


def test_overlapping_cards_are_refused(tmp_path):
    card = {k: v for k, v in yaml.safe_load(SINGLE).items() if k not in {"plans", "metadata"}}
    first = {**card, "effective_to": "2026-03-01"}
    second = {**card, "id": "mine-2", "effective_from": "2026-02-01"}
    with pytest.raises(RateCardError, match="mine-1 and mine-2"):
        load_rate_cards(written(tmp_path, yaml.safe_dump({"cards": [first, second]})))


def test_a_card_survives_the_ledgers_own_form():
    card = builtin_cards().cards[0]
    assert card_from_json(card.to_json()) == card
    assert card_from_json(card.to_json()).fingerprint() == card.fingerprint()


def test_spelling_a_number_differently_is_not_a_change(tmp_path):
    one = load_rate_cards(changed(tmp_path, margin="1")).cards[0]
    other = load_rate_cards(changed(tmp_path, margin="1.000")).cards[0]
    assert one.fingerprint() == other.fingerprint()


NAMES = st.text(st.sampled_from("ab-4[]*?!.1m"), min_size=1, max_size=12)


@given(NAMES, NAMES)
def test_a_model_named_exactly_matches_itself_before_any_glob(model: str, other: str) -> None:
    lines = [{"model": "*", "credits_per_1000_tokens": "1"}, {"model": other, "credits_per_1000_tokens": "2"}]
    rates = AiRates.model_validate({"rates": [*lines, {"model": model, "credits_per_1000_tokens": "3"}]})
    found = rates.rate_of(model.upper(), "input")
    assert found is not None
    assert found.model.lower() == model.lower()


def test_an_exact_name_prices_only_the_classes_it_names() -> None:
    rates = AiRates.model_validate(
        {
            "rates": [
                {"model": "claude-*", "credits_per_1000_tokens": "1"},
                {"model": "claude-4[1m]", "token_class": "output", "credits_per_1000_tokens": "9"},
            ]
        }
    )
    assert [str(rates.rate_of("claude-4[1m]", name).credits_per_1000_tokens) for name in ("input", "output")] == [
        "1",
        "9",
    ]


@pytest.mark.parametrize(
    ("pattern", "model", "is_match"),
    [
        ("claude-*[1m]", "claude-opus-4[1m]", True),  # brackets as they stand
        ("gpt-[45]*", "gpt-5-mini", True),  # brackets as a set
        ("claude-sonnet-4-5[1m]", "claude-sonnet-4-51", False),  # a name
        ("gpt-5", "gpt-5-mini", False),
    ],
)
def test_globs_read_brackets_both_ways(pattern: str, model: str, is_match: bool) -> None:
    assert fits(pattern, model) is is_match
