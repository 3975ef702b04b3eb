from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.rating.card import AiRates, Basis, ComputeRate, RateCard, StorageRate, TokenRate
from billing_core.rating.rate import rate
from billing_core.values.usage_frame import TOKEN_CLASSES
from tests.factories import CARD, model_usage, usage_row, usage_table

MICRO = Decimal("0.000001")


@dataclass(frozen=True)
class Rated:
    ai: Decimal
    compute: Decimal
    storage: Decimal
    total: Decimal
    unpriced: bool


def rated(card=CARD, **facts):
    row = rate(usage_table([usage_row(**facts)]), card).to_pylist()[0]
    return Rated(*(row[f"credits_{n}"] for n in ("ai_tokens", "compute", "storage", "total")), row["unpriced"])


def card_with(**changes):
    return CARD.model_copy(update={"id": "other", **changes})


def by_cost(margin="1", price="0.00004"):
    return card_with(ai=AiRates(basis=Basis.COST), margin=Decimal(margin), credit_price_usd=Decimal(price))


def half_even(value: Fraction) -> Decimal:
    scaled = value * 10**6
    below = scaled.numerator // scaled.denominator
    rest = scaled - below
    return Decimal(below + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and below % 2))).scaleb(-6)


tokens = st.integers(0, 10**9)
model_names = st.sampled_from(["gpt-5", "gpt-5-mini", "claude-sonnet-5", None])
model_lines = st.builds(
    lambda model, counts: model_usage(model, **dict(zip(TOKEN_CLASSES, counts, strict=True))),
    model_names,
    st.tuples(*[tokens] * len(TOKEN_CLASSES)),
)
rates = st.decimals(0, 1000, places=6)


def test_a_thousand_tokens_are_100_credits():
    assert rated().ai == Decimal(100)


@pytest.mark.parametrize("token_class", TOKEN_CLASSES)
def test_every_class_of_token_costs_alike_on_the_built_in_card(token_class):
    assert rated(usage=[model_usage(**{token_class: 1000})]).ai == Decimal(100)


def test_a_trace_of_60_seconds_is_50_compute_credits_never_a_thousandth_never_a_multiple():
    assert rated(latency_seconds=60).compute == Decimal(50)


def test_a_gigabyte_month_is_500_credits():
    assert rated(storage_gb=Decimal(1)).storage == Decimal(500)


def test_nothing_used_is_nothing_owed():
    assert rated(usage=[], latency_seconds=0) == Rated(Decimal(0), Decimal(0), Decimal(0), Decimal(0), False)


def test_a_customer_with_an_own_key_pays_no_ai_tokens_but_pays_compute():
    own = rated(ai_credentials_ownership="user")
    assert (own.ai, own.compute) == (0, 50)


@pytest.mark.parametrize("ownership", [None, "platform", "somebody"])
def test_any_other_owner_of_the_key_is_the_platform(ownership):
    assert rated(ai_credentials_ownership=ownership).ai == Decimal(100)


def test_latency_rounds_once_half_even_to_six_places():
    assert rated(latency_seconds=0.001).compute == Decimal("0.000833")
    assert rated(latency_seconds=1).compute == Decimal("0.833333")
    assert rated(latency_seconds=2).compute == Decimal("1.666667")


def test_a_fraction_is_never_rounded_up_per_trace():
    assert rated(usage=[model_usage(input=1)], latency_seconds=0).total == Decimal("0.1")


@given(st.lists(model_lines, max_size=4), st.decimals(0, 10**6, places=6), st.none() | st.decimals(0, 10**6, places=12))
def test_the_total_is_the_sum_of_the_stored_parts(lines, seconds, storage):
    found = rated(usage=lines, latency_seconds=seconds, storage_gb=storage)
    assert found.total == found.ai + found.compute + found.storage


@given(st.lists(model_lines, max_size=4), rates, rates, st.decimals("0.5", 5, places=3))
def test_ai_credits_are_the_exact_sum_of_tokens_times_rates_rounded_once(lines, gpt_rate, other_rate, margin):
    ai = AiRates(
        rates=(
            TokenRate(model="gpt-*", credits_per_1000_tokens=gpt_rate),
            TokenRate(credits_per_1000_tokens=other_rate),
        )
    )
    exact = sum(
        (
            Fraction(line[c]) * Fraction(gpt_rate if (line["model"] or "").startswith("gpt-") else other_rate)
            for line in lines
            for c in TOKEN_CLASSES
        ),
        Fraction(0),
    )
    found = rated(card_with(ai=ai, margin=margin), usage=lines)
    expected = half_even(exact * Fraction(margin) / 1000)
    assert found.ai == (expected if expected <= 10**11 else 0)


@given(model_lines, st.sampled_from(TOKEN_CLASSES), st.integers(1, 10**6))
def test_more_tokens_never_cost_less(line, token_class, more):
    grown = {**line, token_class: line[token_class] + more}
    assert rated(usage=[grown]).ai >= rated(usage=[line]).ai


@given(st.decimals(0, 10**6, places=6), st.decimals(0, 10**6, places=6))
def test_latency_is_additive_up_to_one_rounding_each(first, second):
    together = rated(latency_seconds=first + second).compute
    apart = rated(latency_seconds=first).compute + rated(latency_seconds=second).compute
    assert abs(together - apart) <= MICRO


@given(st.decimals(0, 100, places=12), st.decimals("0.5", 5, places=2))
def test_by_cost_credits_are_cost_times_margin_over_price_with_margin_once(cost, margin):
    exact = Fraction(cost) * Fraction(margin) / Fraction("0.00004")
    assert rated(by_cost(str(margin)), cost_usd=cost).ai == half_even(exact)


def test_by_cost_an_unknown_cost_is_unpriced_not_free():
    found = rated(by_cost(), cost_usd=None)
    assert (found.ai, found.unpriced) == (0, True)


def test_a_model_without_a_rate_is_unpriced_not_free():
    only_claude = AiRates(rates=(TokenRate(model="claude-*", credits_per_1000_tokens=Decimal(7)),))
    found = rated(card_with(ai=only_claude))
    assert (found.ai, found.unpriced) == (0, True)


def test_the_priced_part_of_a_trace_is_rated_when_another_model_has_no_rate():
    only_claude = AiRates(rates=(TokenRate(model="claude-*", credits_per_1000_tokens=Decimal(7)),))
    lines = [model_usage("gpt-5", input=1000), model_usage("claude-opus-5", input=1000)]
    found = rated(card_with(ai=only_claude), usage=lines)
    assert (found.ai, found.unpriced) == (7, True)


def test_the_first_rate_that_covers_a_token_wins_and_globs_ignore_case():
    ai = AiRates(
        rates=(
            TokenRate(model="GPT-5-mini*", token_class="cache_read", credits_per_1000_tokens=Decimal(1)),
            TokenRate(model="gpt-5-mini*", credits_per_1000_tokens=Decimal(10)),
            TokenRate(credits_per_1000_tokens=Decimal(100)),
        )
    )
    lines = [model_usage("gpt-5-mini-2026", input=1000, cache_read=1000), model_usage("gpt-5", output=1000)]
    assert rated(card_with(ai=ai), usage=lines).ai == Decimal(111)


def test_other_rates_for_compute_and_storage():
    card = card_with(
        compute=ComputeRate(credits_per_minute=Decimal("0.5")), storage=StorageRate(credits_per_gb_month=2)
    )
    found = rated(card, latency_seconds=120, storage_gb=Decimal("1.5"))
    assert (found.compute, found.storage) == (Decimal(1), Decimal(3))


def test_rows_are_rated_independently_and_in_order():
    rows = [usage_row(id=str(n), usage=[model_usage(input=n)] * (n % 3)) for n in range(50)]
    found = rate(usage_table(rows), CARD)["credits_ai_tokens"].to_pylist()
    assert found == [Decimal(n * (n % 3)) / 10 for n in range(50)]


def test_an_empty_frame_is_an_empty_answer():
    assert rate(usage_table([]), CARD).num_rows == 0


def test_absurd_components_are_flagged_and_not_rated():
    dear = card_with(storage=StorageRate(credits_per_gb_month=Decimal(1000)))
    row = rate(usage_table([usage_row(storage_gb=Decimal(10**9))]), dear).to_pylist()[0]
    assert (row["absurd"], row["credits_storage"], row["credits_total"]) == (True, 0, Decimal(150))


def test_a_sliced_frame_rates_its_own_rows():
    rows = [usage_row(id=str(n), usage=[model_usage(input=1000 * n)]) for n in range(10)]
    assert rate(usage_table(rows)[4:6], CARD)["credits_ai_tokens"].to_pylist() == [Decimal(400), Decimal(500)]


def test_it_is_decimal_all_the_way():
    one_third = rated(usage=[model_usage(input=1)], latency_seconds="0.1")
    expected = (Decimal("0.1") / 60 * 50).quantize(MICRO, ROUND_HALF_EVEN)
    assert one_third.total == Decimal("0.1") + expected


def test_cards_with_awkward_denominators_stay_exact():
    card = RateCard(
        id="odd",
        effective_from=CARD.effective_from,
        credit_price_usd=Decimal("0.000007"),
        margin=Decimal("1.3"),
        ai=AiRates(basis=Basis.COST),
        compute=CARD.compute,
        storage=CARD.storage,
    )
    expected = half_even(Fraction("0.123456789012") * Fraction("1.3") / Fraction("0.000007"))
    assert rated(card, cost_usd=Decimal("0.123456789012")).ai == expected


@given(st.integers(0, 60 * 86400))
def test_a_run_no_run_can_take_is_not_rated_and_flagged(seconds):
    given_ = rate(usage_table([usage_row(latency_seconds=seconds)]), CARD).to_pylist()[0]
    is_too_long = seconds > 30 * 86400
    assert given_["absurd"] is is_too_long
    assert given_["credits_compute"] == (0 if is_too_long else half_even(Fraction(seconds * 50, 60)))
    assert given_["credits_ai_tokens"] == 100
