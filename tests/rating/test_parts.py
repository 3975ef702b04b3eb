"""AI credits of an event split by model and token class: the parts always make the booked whole."""

from collections import defaultdict
from decimal import Decimal

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_core.rating.card import AiRates, Basis, LeftOut, TokenRate
from billing_core.rating.parts import ai_parts, needs_lines
from billing_core.rating.rate import rate
from billing_core.values.decimals import exact_sum
from billing_core.values.usage_frame import TOKEN_CLASSES
from tests.examples import examples
from tests.factories import CARD, model_usage, usage_row, usage_table

A_THIRD = CARD.model_copy(
    update={
        "id": "thirds",
        "ai": AiRates(
            rates=(
                TokenRate(model="gpt-5", credits_per_1000_tokens=Decimal("0.333333333333")),
                TokenRate(model="claude-*", token_class="output", credits_per_1000_tokens=Decimal("0.0016666")),
                TokenRate(credits_per_1000_tokens=Decimal("7")),
            )
        ),
        "margin": Decimal("1.07"),
    }
)
BY_COST = CARD.model_copy(
    update={"id": "cost", "ai": AiRates(basis=Basis.COST), "credit_price_usd": Decimal("0.00003"), "units": {}}
)
CARDS = {card.id: card for card in (CARD, A_THIRD, BY_COST)}


def split(rows, card=CARD, booked=None):
    """Parts of each row by (model, class), after rating with the card or with `booked` credits."""
    usage = usage_table(rows)
    credits_ = rate(usage, card)["credits_ai_tokens"] if booked is None else pa.chunked_array([booked])
    parts = ai_parts(usage.append_column("credits_ai_tokens", credits_.cast(pa.decimal128(18, 6))), card)
    found = [{} for _ in rows]
    for part in parts.to_pylist():
        found[part["row"]][part["model"], part["token_class"]] = part["credits"]
    return found, credits_.to_pylist()


def test_each_model_and_class_gets_what_its_own_tokens_cost():
    usage = [model_usage("claude", input=10, cache_read=40), model_usage("gpt-5", output=100)]
    (parts,), _ = split([usage_row(usage=usage)])
    assert parts == {("claude", "input"): 1, ("claude", "cache_read"): 4, ("gpt-5", "output"): 10}


def test_what_rounding_leaves_is_in_the_largest_part_and_the_first_of_equals():
    usage = [model_usage("a", input=1), model_usage("b", input=1), model_usage("gpt-5", input=1)]
    card = A_THIRD.model_copy(
        update={"margin": Decimal(1), "ai": AiRates(rates=(TokenRate(credits_per_1000_tokens=Decimal("0.0005")),))}
    )
    (parts,), (whole,) = split([usage_row(usage=usage)], card)
    assert whole == Decimal("0.000002")  # 1.5 millionths, half-even; each third is half a millionth: 0
    assert parts == {("a", "input"): Decimal("0.000002")}


def test_by_cost_a_model_gets_what_its_own_cost_gives_and_no_class():
    usage = [model_usage("claude", "0.0001", input=10), model_usage("gpt-5", "0.0002", input=10)]
    (parts,), (whole,) = split([usage_row(usage=usage, cost_usd=Decimal("0.0003"))], BY_COST)
    assert whole == 10
    assert parts == {("claude", None): Decimal("3.333333"), ("gpt-5", None): Decimal("6.666667")}


def test_credits_the_card_does_not_give_belong_to_the_only_model_or_to_none():
    two = [model_usage("claude", input=10), model_usage("gpt-5", output=100)]
    rows = [usage_row(usage=two), usage_row(), usage_row(usage=[])]
    booked = pa.array([Decimal(7)] * 3, pa.decimal128(18, 6))
    for card in (CARD, None):
        parts, _ = split(rows, card, booked)
        assert parts == [{(None, None): 7}, {("gpt-5", None): 7}, {(None, None): 7}]


def test_what_is_taken_back_is_taken_back_part_by_part():
    usage = [model_usage("claude", input=10), model_usage("gpt-5", output=100)]
    (parts,), _ = split([usage_row(usage=usage)], CARD, pa.array([Decimal(-11)], pa.decimal128(18, 6)))
    assert parts == {("claude", "input"): -1, ("gpt-5", "output"): -10}


def test_observations_that_the_card_leaves_out_get_nothing():
    card = CARD.model_copy(update={"exclude": (LeftOut(name="retry"),)})
    assert needs_lines([CARD, card])
    assert not needs_lines([CARD])
    line = {"model": "gpt-5", "name": "chat", "type": "GENERATION", "key": "input", "quantity": 100}
    lines = [line, {**line, "name": "retry"}, {**line, "model": "claude", "name": "retry"}]
    usage = [model_usage("claude", input=100), model_usage("gpt-5", input=200)]
    (parts,), _ = split([usage_row(usage=usage, usage_lines=lines)], card)
    assert parts == {("gpt-5", "input"): 10}


tokens = st.integers(0, 10**9)
used = st.lists(
    st.builds(
        lambda model, cost, counts: model_usage(model, cost, **dict(zip(TOKEN_CLASSES, counts, strict=True))),
        st.sampled_from([None, "claude-x", "gpt-5", "other"]),
        st.none() | st.decimals(0, 100, places=12).map(str),
        st.tuples(*[tokens] * len(TOKEN_CLASSES)),
    ),
    max_size=4,
    unique_by=lambda one: one["model"],
)
owners = st.sampled_from([None, "user"])


@settings(max_examples=examples(60))
@given(rows=st.lists(st.tuples(used, owners), max_size=5), card=st.sampled_from(sorted(CARDS)))
def test_parts_make_the_whole_to_the_last_digit_and_are_rounded_once(rows, card):
    made = []
    for usage, owner in rows:
        costs = [one["cost_usd"] for one in usage if one["cost_usd"] is not None]
        total = exact_sum(costs) if costs else None
        made.append(usage_row(usage=usage, ai_credentials_ownership=owner, cost_usd=total))
    found, whole = split(made, CARDS[card])
    assert [exact_sum(parts.values()) for parts in found] == whole
    alone = defaultdict(Decimal)
    for parts, (usage, owner) in zip(found, rows, strict=True):
        for one in usage if owner is None else ():
            alone, _ = split([usage_row(usage=[one], cost_usd=one["cost_usd"])], CARDS[card])
            mine = exact_sum(value for (model, _), value in parts.items() if model == one["model"])
            assert abs(mine - exact_sum(alone[0].values())) <= Decimal("0.000025")
