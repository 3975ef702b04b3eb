"""Tokens and cost of one observation."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.langfuse.amounts import read_cost, read_tokens, token_class
from billing_core.usage import TOKEN_CLASSES


def classes(details: dict[str, Any]) -> dict[str, int]:
    counted = zip(TOKEN_CLASSES, read_tokens("o", details).classes, strict=True)
    return {name: count for name, count in counted if count}


@pytest.mark.parametrize(
    ("details", "tokens_in", "tokens_out", "total"),
    [
        ({}, None, None, None),
        ({"input": 10, "output": 5}, 10, 5, 15),
        ({"input": 10, "output": 5, "total": 15}, 10, 5, 15),
        ({"total": 40}, None, None, 40),
        ({"input": 10, "cache_read_input_tokens": 7, "output": 5}, 17, 5, 22),
        ({"input": "12", "output": 3.0}, 12, 3, 15),
        ({"input": None, "output": 3}, None, 3, 3),
        ({"seconds": 9}, None, None, 9),
        ({"input": 0, "output": 0, "total": 0}, 0, 0, 0),
    ],
)
def test_tokens_follow_one_rule(
    details: dict[str, Any], tokens_in: int | None, tokens_out: int | None, total: int | None
) -> None:
    tokens = read_tokens("o", details)
    assert (tokens.tokens_in, tokens.tokens_out, tokens.total) == (tokens_in, tokens_out, total)
    assert not tokens.bad
    assert sum(tokens.classes) == (total or 0)


@pytest.mark.parametrize("value", [-1, -5, 10**9 + 1, 1.5, "many", "1_0", True, [], float("nan"), float("inf")])
def test_a_bad_count_is_dropped_flagged_and_named(value: Any) -> None:
    tokens = read_tokens("obs1", {"input": value, "output": 5, "total": 900})
    assert tokens.bad
    assert (tokens.tokens_in, tokens.tokens_out, tokens.total) == (None, 5, 5)
    assert "observation obs1: usage input" in tokens.problems[0]


def test_a_good_total_survives_when_everything_else_is_bad() -> None:
    tokens = read_tokens("o", {"input": -1, "total": 900})
    assert (tokens.total, tokens.bad, tokens.classes) == (900, True, (0, 0, 0, 0, 0, 900))


def test_a_bad_total_leaves_the_sum_of_the_rest() -> None:
    tokens = read_tokens("o", {"input": 4, "output": 5, "total": -1})
    assert (tokens.total, tokens.bad) == (9, True)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("input", "input"),
        ("prompt_tokens", "input"),
        ("output", "output"),
        ("completion_tokens", "output"),
        ("cache_read_input_tokens", "cache_read"),
        ("input_cached_tokens", "cache_read"),
        ("cache_creation_input_tokens", "cache_write"),
        ("cache_write_5m", "cache_write"),
        ("output_reasoning_tokens", "reasoning"),
        ("thinking", "reasoning"),
        ("images", "other"),
    ],
)
def test_every_usage_key_belongs_to_one_class(key: str, name: str) -> None:
    assert TOKEN_CLASSES[token_class(key)] == name


def test_what_a_larger_total_does_not_name_is_other() -> None:
    assert classes({"input": 10, "output": 5, "total": 20}) == {"input": 10, "output": 5, "other": 5}


def test_overlapping_cache_and_reasoning_are_taken_out_of_input_and_output() -> None:
    details = {"input": 100, "input_cached": 60, "output": 50, "output_reasoning": 20, "total": 150}
    assert classes(details) == {"input": 40, "cache_read": 60, "output": 30, "reasoning": 20}
    tokens = read_tokens("o", details)
    assert tokens.overlap
    assert "overlap" in tokens.problems[0]


def test_an_overlap_beyond_cache_and_reasoning_comes_off_the_largest() -> None:
    assert classes({"input": 100, "output": 50, "total": 60}) == {"input": 10, "output": 50}


@given(
    st.dictionaries(st.sampled_from(["input", "output", "cache_read", "reasoning", "x", "total"]), st.integers(0, 999))
)
def test_classes_always_sum_to_the_total(details: dict[str, int]) -> None:
    tokens = read_tokens("o", details)
    assert sum(tokens.classes) == (tokens.total or 0)
    assert min(tokens.classes) >= 0


@pytest.mark.parametrize(
    ("details", "bare", "usd"),
    [
        ({}, None, None),
        ({}, 0, None),  # older servers say 0 for unknown
        ({}, -1, None),  # legacy: not requested
        ({}, Decimal("0.5"), "0.5"),
        ({"total": Decimal("0.3"), "input": Decimal("0.1")}, None, "0.3"),
        ({"total": Decimal(0)}, 0, "0"),
        ({"input": Decimal("0.1"), "tool": Decimal("0.2")}, 0, "0.3"),
        ({"input": Decimal("1E-7")}, None, "0.0000001"),
        ({"input": Decimal("0.0000000000005")}, None, "0"),  # half-even at the twelfth place
        ({"input": Decimal("0.0000000000015")}, None, "0.000000000002"),
        ({"input": None}, None, None),
        ({"input": "0.25"}, None, "0.25"),
    ],
)
def test_cost_is_the_total_else_the_sum_else_unknown(details: dict[str, Any], bare: Any, usd: str | None) -> None:
    cost = read_cost("o", details, bare)
    assert cost.usd == (None if usd is None else Decimal(usd))
    assert not cost.bad


@pytest.mark.parametrize("value", [Decimal(-1), Decimal(10**6), Decimal("NaN"), float("nan"), "dear", [], True])
def test_a_bad_cost_is_unknown_flagged_and_named(value: Any) -> None:
    cost = read_cost("obs1", {"total": value}, None)
    assert (cost.usd, cost.bad) == (None, True)
    assert "observation obs1: cost total" in cost.problems[0]


def test_a_bad_part_does_not_hide_the_good_one() -> None:
    cost = read_cost("o", {"input": Decimal("0.1"), "output": Decimal(-5)}, None)
    assert (cost.usd, cost.bad) == (Decimal("0.1"), True)


def test_a_bad_bare_total_is_flagged() -> None:
    assert read_cost("o", {}, Decimal("-0.5")).bad
