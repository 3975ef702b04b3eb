"""What a card may say of observations, usage keys, other units and time."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.errors import RateCardError
from billing_core.rating.card import RateCard, card_from_json, parse_rate_cards
from billing_core.rating.events import Policy, to_events
from billing_core.rating.rate import rate
from billing_core.values.usage_frame import TOKEN_CLASSES
from billing_core.values.usage_keys import read_key
from tests.factories import CARD, model_usage, usage_row, usage_table


def line(quantity: int | None = None, key: str | None = None, **more: Any) -> dict[str, Any]:
    """What observations of one kind used of one key; without a key what they cost."""
    kind = {"model": "gpt-5", "name": "call", "type": "GENERATION", "level": "DEFAULT"}
    rest = {"cost_usd": None, "repeats": False, "unpriced": False}
    return {**kind, "key": key, "quantity": quantity, **rest, **more}


AGENT = {"model": None, "name": "agent run", "type": "AGENT", "repeats": True, "unpriced": True}
REPEATED = [
    line(100, "input", **AGENT),
    line(50, "output", **AGENT),
    line(cost_usd=Decimal("0.03")),
    line(100, "input"),
    line(50, "output"),
]
"""An agent that repeats what its calls used."""


def card_of(**changes: Any) -> RateCard:
    return RateCard.model_validate({**json.loads(CARD.to_json()), "id": "other", **changes})


def rated(card: RateCard, lines: list[dict[str, Any]] | None, **facts: Any) -> dict[str, Any]:
    [row] = rate(usage_table([usage_row(usage_lines=lines, **facts)]), card).to_pylist()
    return row


def flags(card: RateCard, lines: list[dict[str, Any]], **facts: Any) -> list[str]:
    [row] = to_events(usage_table([usage_row(usage_lines=lines, **facts)]), [card], Policy()).to_pylist()
    return row["flags"]


SUSPECT = {"double_count_suspect": True, "unpriced": True, "cost_usd": Decimal("0.03"), "tokens_total": 300}


@pytest.mark.parametrize(
    "named",
    [
        {"name": "agent *", "type": "AGENT"},
        {"name": "AGENT RUN"},
        {"type": "agent"},
        {"level": "DEFAULT", "type": "A*"},
    ],
)
def test_observations_that_a_card_names_are_left_out(named: dict[str, str]) -> None:
    whole, without = card_of(), card_of(exclude=[named])
    assert rated(whole, REPEATED)["credits_ai_tokens"] == 30
    assert rated(without, REPEATED)["credits_ai_tokens"] == 15
    assert flags(whole, REPEATED, **SUSPECT) == ["unpriced", "double_count_suspect"]
    assert flags(without, REPEATED, **SUSPECT) == []


@pytest.mark.parametrize("named", [{"name": "agent"}, {"name": "agent *", "type": "SPAN"}, {"model": "*", "type": "X"}])
def test_all_that_is_named_must_fit(named: dict[str, str]) -> None:
    assert rated(card_of(exclude=[named]), REPEATED)["credits_ai_tokens"] == 30


def test_a_name_that_is_not_there_fits_nothing() -> None:
    assert rated(card_of(exclude=[{"name": "*"}]), [line(10, "input", name=None)])["credits_ai_tokens"] == 1


def test_what_is_left_out_costs_nothing_where_cost_is_billed() -> None:
    lines = [line(cost_usd=Decimal(1), **{**AGENT, "unpriced": False}), line(cost_usd=Decimal("0.5"))]
    by_cost = {"ai": {"basis": "cost"}, "credit_price_usd": "0.5"}
    facts = {"cost_usd": Decimal("1.5")}
    assert rated(card_of(**by_cost), lines, **facts)["credits_ai_tokens"] == 3
    assert rated(card_of(**by_cost, exclude=[{"type": "AGENT"}]), lines, **facts)["credits_ai_tokens"] == 1


RATES = [
    {"token_class": name, "credits_per_1000_tokens": str(price)} for price, name in enumerate(TOKEN_CLASSES, start=1)
]
BY_CLASS = {"ai": {"basis": "tokens", "rates": RATES}}


@given(st.sampled_from(TOKEN_CLASSES), st.sampled_from(["my_1h_input_tokens", "My1hInputTokens", "my.1h.input.tokens"]))
def test_a_card_maps_keys_to_classes(name: str, key: str) -> None:
    for pattern in ("my_1h_input_tokens", "*_1h_input_tokens", key):
        card = card_of(**BY_CLASS, token_classes={pattern: name})
        row = rated(card, [line(1000, key)])
        assert row["credits_ai_tokens"] == TOKEN_CLASSES.index(name) + 1
        assert not row["unknown_usage"]


def test_a_key_nobody_knows_is_rated_as_other_and_flagged_until_the_card_maps_it() -> None:
    lines = [line(1000, "frobs")]
    assert flags(card_of(), lines) == ["unknown_usage"]
    assert flags(card_of(token_classes={"frob*": "input"}), lines) == []
    assert flags(card_of(units={"frobs": 1}), lines) == []


@given(st.integers(1, 10**6), st.decimals(0, 1000, places=6), st.decimals("0.5", 2, places=3))
def test_other_units_cost_what_the_card_says_and_stand_in_ai_credits(
    count: int, each: Decimal, margin: Decimal
) -> None:
    lines = [line(1000, "input"), line(count, "server_tool_use.web_search_requests")]
    row = rated(card_of(units={"*web_search_requests": str(each)}, margin=str(margin)), lines)
    exact = (Fraction(100) + count * Fraction(each)) * Fraction(margin)
    assert abs(Fraction(row["credits_ai_tokens"]) - exact) <= Fraction(1, 2 * 10**6)
    parts = ("credits_ai_tokens", "credits_compute", "credits_storage")
    assert row["credits_total"] == sum(row[part] for part in parts)
    assert not row["unpriced"]


def test_other_units_without_a_price_are_flagged_and_never_counted_as_tokens() -> None:
    row = rated(card_of(), [line(1000, "input"), line(7, "images")])
    assert (row["credits_ai_tokens"], row["unpriced"]) == (100, True)
    assert not rated(card_of(units={"images": 0}), [line(7, "images")])["unpriced"]


def test_where_cost_is_billed_units_with_a_price_are_added() -> None:
    card = card_of(ai={"basis": "cost"}, units={"web_search_requests": 10})
    row = rated(card, [line(cost_usd=Decimal("0.01")), line(3, "webSearchRequests")], cost_usd=Decimal("0.01"))
    assert (row["credits_ai_tokens"], row["unpriced"]) == (280, False)


def test_the_customers_own_key_makes_units_free_too() -> None:
    lines = [line(1000, "input"), line(7, "images")]
    assert rated(card_of(units={"images": 5}), lines, ai_credentials_ownership="user")["credits_ai_tokens"] == 0


@given(st.integers(0, 3600), st.integers(0, 50))
def test_active_compute_counts_the_time_in_which_something_ran(active: int, per_minute: int) -> None:
    card = card_of(compute={"credits_per_minute": per_minute, "basis": "active"})
    facts = {"active_seconds": Decimal(active), "latency_seconds": 40 * 86400}
    row = rated(card, [], **facts)
    assert abs(Fraction(row["credits_compute"]) - Fraction(active * per_minute, 60)) <= Fraction(1, 2 * 10**6)
    assert not row["absurd"]
    assert rated(card, [], active_seconds=None)["absurd"]


KEYS = st.sampled_from(["input", "output", "cache_read", "cache_write", "reasoning", "other"])
USED = st.lists(st.tuples(st.sampled_from(["gpt-5", "claude", None]), KEYS, st.integers(1, 10**9)), max_size=8)


@given(USED)
def test_lines_and_sums_by_model_come_to_the_same(used: list[tuple[str | None, str, int]]) -> None:
    sums: dict[str | None, dict[str, int]] = {}
    for model, key, count in used:
        counts = sums.setdefault(model, {})
        name = TOKEN_CLASSES[read_key(key).token_class]
        counts[name] = counts.get(name, 0) + count
    usage = [model_usage(model, **counts) for model, counts in sums.items()]
    lines = [line(count, key, model=model) for model, key, count in used]
    card = card_of(ai={"rates": [{"model": "gpt*", "credits_per_1000_tokens": 7}, *RATES]})
    table = usage_table([usage_row(usage=usage, usage_lines=known) for known in (lines, None)])
    known, derived = rate(table, card).to_pylist()
    assert known == derived


def test_events_with_and_without_lines_stay_in_their_rows() -> None:
    some = [usage_row(id=str(n), usage_lines=[line(1000 * n, "input")] if n % 2 else None) for n in range(1, 6)]
    found = rate(usage_table(some), card_of()).to_pylist()
    assert [row["credits_ai_tokens"] for row in found] == [100, 100, 300, 100, 500]


def test_empty_lines_beside_usage_say_nothing() -> None:
    assert rated(card_of(), [])["credits_ai_tokens"] == 100
    assert rated(card_of(), [], usage=[], tokens_total=None)["credits_ai_tokens"] == 0


# ── the card itself ──────────────────────────────────────────────────────────────────────────────

RULES: dict[str, Any] = {
    "exclude": [{"name": "agent *", "type": "AGENT"}],
    "token_classes": {"*_1h_input_tokens": "cache_write"},
    "units": {"web_search_requests": "10"},
    "compute": {"credits_per_minute": "50", "basis": "active"},
}


def test_a_card_with_rules_comes_back_from_the_ledgers_text_as_it_was() -> None:
    card = card_of(**RULES)
    assert card_from_json(card.to_json()) == card
    assert card_from_json(card.to_json()).fingerprint() == card.fingerprint()


@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_part_of_what_makes_a_card_itself(name: str) -> None:
    assert card_of(**{name: RULES[name]}).fingerprint() != card_of().fingerprint()


def test_cards_without_rules_keep_the_hash_they_had() -> None:
    assert CARD.fingerprint() == "18bc478b5de88bd5cc70ccbe027dd3479cf6bd241cbff231d5597ae013919ba1"


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("token_classes: {a: cache_writing}", "token_classes.a = 'cache_writing': unknown class 'cache_writing'"),
        ("units: {searches: -1}", "units.searches = '-1'"),
        ("units: {searches: many}", "units.searches = 'many'"),
        ("exclude: [{}]", "exclude.0: names nothing; expected one or more of name, type, model, level"),
        ("exclude: [{nmae: x}]", "exclude.0.nmae = 'x'"),
        ("exclude: {name: x}", "exclude"),
        ("token_classes: {a: input}\nunits: {a: 1}", "'a' is in token_classes and in units"),
        ("exlude: []", "exlude"),
    ],
)
def test_a_wrong_rule_is_one_line_that_names_it(rule: str, says: str) -> None:
    with pytest.raises(RateCardError) as caught:
        parse_rate_cards(f"{TEXT}\n{rule}\n", "card.yaml")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_basis_of_compute_is_named() -> None:
    with pytest.raises(RateCardError, match=r"compute\.basis = 'wall'"):
        parse_rate_cards(TEXT.replace("per_minute: 50", "per_minute: 50, basis: wall"), "card.yaml")


TEXT = """id: mine
effective_from: 2026-01-01
credit_price_usd: 0.00004
ai: {rates: [{credits_per_1000_tokens: 100}]}
compute: {credits_per_minute: 50}
storage: {credits_per_gb_month: 500}"""
