"""Tokens and cost of one observation."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.langfuse.amounts import NO_TOKENS, _counted, read_cost, read_tokens
from billing_core.values.usage_frame import TOKEN_CLASSES
from billing_core.values.usage_keys import KeyMeaning, read_key


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
        ({"seconds": 9}, None, None, None),
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
        ("something", "other"),
    ],
)
def test_every_usage_key_belongs_to_one_class(key: str, name: str) -> None:
    assert TOKEN_CLASSES[read_key(key).token_class] == name


def test_what_a_larger_total_does_not_name_is_other() -> None:
    assert classes({"input": 10, "output": 5, "total": 20}) == {"input": 10, "output": 5, "other": 5}


def test_overlapping_cache_and_reasoning_are_taken_out_of_input_and_output() -> None:
    details = {"input": 100, "input_cached": 60, "output": 50, "output_reasoning": 20, "total": 150}
    assert classes(details) == {"input": 40, "cache_read": 60, "output": 30, "reasoning": 20}
    tokens = read_tokens("o", details)
    assert tokens.overlap
    assert "contradict each other" in tokens.problems[0]


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


TOTALS = ["total_tokens", "totalTokens", "total_token_count", "gen_ai.usage.total_tokens", "llm.token_count.total"]
PARTS = ["prompt_tokens", "completion_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "reasoning"]
COUNTS = st.dictionaries(st.sampled_from(PARTS), st.integers(1, 10_000), min_size=1)


@given(COUNTS, st.lists(st.sampled_from(TOTALS), unique=True), st.booleans())
def test_a_total_in_any_spelling_is_no_further_bucket(parts: dict[str, int], totals: list[str], adds_up: bool) -> None:
    total = sum(parts.values())
    details = {**parts, **dict.fromkeys(totals, total)}
    if adds_up:  # Langfuse itself makes `total` the sum of everything that was sent
        details["total"] = sum(details.values())
    tokens = read_tokens("o", details)
    assert tokens.total == sum(tokens.classes) == total
    assert not tokens.overlap


@given(COUNTS, st.sampled_from(TOTALS), st.integers(1, 10_000))
def test_a_total_below_its_parts_counts_and_is_flagged(parts: dict[str, int], key: str, missing: int) -> None:
    total = max(sum(parts.values()) - missing, 0)
    tokens = read_tokens("o", {**parts, key: total})
    assert (tokens.total, sum(tokens.classes)) == (total, total)
    assert tokens.overlap
    assert "contradict each other" in tokens.problems[0]


def test_two_totals_that_differ_are_flagged_and_the_one_that_fits_counts() -> None:
    tokens = read_tokens("o", {"input": 10, "output": 5, "total_tokens": 15, "total": 20})
    assert (tokens.total, tokens.overlap) == (15, True)
    assert read_tokens("o", {"total": 30, "totalTokens": 12}).overlap


UNITS = ["web_search_requests", "input_characters", "images", "audio_seconds", "requests", "searches"]


@given(COUNTS, st.dictionaries(st.sampled_from(UNITS), st.integers(1, 999)), st.booleans())
def test_other_units_are_never_tokens(parts: dict[str, int], units: dict[str, int], adds_up: bool) -> None:
    details = {**parts, **units}
    if adds_up:
        details["total"] = sum(details.values())
    tokens = read_tokens("o", details)
    assert tokens.total == sum(parts.values())
    assert {key: count for key, count in zip(tokens.keys, tokens.counts, strict=True) if key in units} == units


def test_usage_of_other_units_alone_names_no_tokens() -> None:
    assert read_tokens("o", {"images": 2, "total": 2})[:3] == (None, None, None)


@pytest.mark.parametrize(
    ("details", "counted"),
    [
        # a provider's own object, stored raw: details are parts of prompt and completion
        (
            {
                "prompt_tokens": 100,
                "prompt_tokens_details.cached_tokens": 80,
                "completion_tokens": 50,
                "completion_tokens_details.reasoning_tokens": 20,
            },
            {"input": 20, "cache_read": 80, "output": 30, "reasoning": 20},
        ),
        (
            {
                "promptTokenCount": 100,
                "cachedContentTokenCount": 80,
                "candidatesTokenCount": 5,
                "thoughtsTokenCount": 7,
            },
            {"input": 20, "cache_read": 80, "output": 5, "reasoning": 7},
        ),
        (
            {"prompt_tokens": 100, "prompt_cache_hit_tokens": 80, "prompt_cache_miss_tokens": 20},
            {"input": 20, "cache_read": 80},
        ),
        (
            {
                "input_tokens": 9,
                "cache_creation_input_tokens": 70,
                "ephemeral_5m_input_tokens": 30,
                "ephemeral_1h_input_tokens": 40,
            },
            {"input": 9, "cache_write": 70},
        ),
        # the same without the total that proves it
        (
            {"prompt_tokens": 100, "cached_tokens": 80, "completion_tokens": 50, "total_tokens": 150},
            {"input": 20, "cache_read": 80, "output": 50},
        ),
    ],
)
def test_parts_sent_beside_their_whole_count_once_and_are_flagged(
    details: dict[str, int], counted: dict[str, int]
) -> None:
    for sent in (details, {**details, "total": sum(details.values())}):
        assert classes(sent) == counted
        assert read_tokens("o", sent).overlap


@pytest.mark.parametrize(
    "details",
    [
        {"input": 100, "input_cached_tokens": 100, "output": 50, "output_reasoning_tokens": 50, "total": 300},
        {"input_tokens": 5, "cache_read_input_tokens": 900, "cache_creation_input_tokens": 70},
        {"cache_creation_input_tokens": 120, "input_cache_creation_1h": 180},
        {"input": 3, "input_audio_tokens": 3, "output_audio_tokens": 4},
    ],
)
def test_keys_that_langfuse_keeps_apart_are_added_up(details: dict[str, int]) -> None:
    tokens = read_tokens("o", details)
    assert tokens.total == sum(count for key, count in details.items() if key != "total")
    assert not tokens.overlap


@pytest.mark.parametrize("copy", ["prompt_tokens", "inputTokens", "input_token_count", "total_input_tokens"])
def test_the_same_number_in_two_spellings_counts_once(copy: str) -> None:
    tokens = read_tokens("o", {"input": 10, copy: 10, "output": 5, "total": 25})
    assert (tokens.tokens_in, tokens.total, tokens.overlap) == (10, 15, False)
    torn = read_tokens("o", {"input": 10, copy: 11, "output": 5})
    assert torn.overlap


def test_a_key_of_no_known_kind_is_named() -> None:
    tokens = read_tokens("o", {"input": 3, "frobs": 7})
    assert (tokens.total, tokens.unknown) == (10, True)
    assert tokens.problems == ("usage key 'frobs' is of no known kind: its tokens count as other",)
    assert not read_tokens("o", {"input": 3, "frobs": 0}).unknown


@given(st.dictionaries(st.text(max_size=12), st.integers(0, 10**6), max_size=6))
def test_whatever_is_sent_classes_sum_to_the_total_and_keys_to_the_classes(details: dict[str, int]) -> None:
    tokens = read_tokens("o", details)
    assert sum(tokens.classes) == (tokens.total or 0)
    assert min(tokens.classes) >= 0
    lines = [count for key, count in zip(tokens.keys, tokens.counts, strict=True) if is_token(key)]
    assert sum(lines) == (tokens.total or 0)


def is_token(key: str) -> bool:
    return read_key(key).counted is not KeyMeaning.UNITS


def test_half_a_surrogate_in_a_key_can_be_stored() -> None:
    assert read_tokens("o", {"caf\ud800": 7}).keys == ("caf?",)
    for sentence in read_tokens("o", {"caf\ud800": -1, "na\ud800me": 1, "total": 0, "x" * 9999: "\ud800"}).problems:
        assert len(sentence.encode()) < 1_000


@given(
    st.dictionaries(
        st.sampled_from(
            ["input", "output", "input_cached_tokens", "cache_creation_input_tokens", "reasoning", "total"]
        ),
        st.integers(0, 99),
    )
)
def test_the_short_way_finds_what_the_long_way_finds(details: dict[str, int]) -> None:
    assert read_tokens("o", details) == (_counted("o", details, []) if details else NO_TOKENS)


@pytest.mark.parametrize(
    ("details", "counted"),
    [
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "total_tokens": 150,
                "prompt_tokens_details": {"cached_tokens": 80, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 20},
            },
            {"input": 20, "cache_read": 80, "output": 30, "reasoning": 20},
        ),
        (
            {"input_tokens": 5, "cache_creation": {"ephemeral_1h_input_tokens": 7}, "server_tool_use": None},
            {"input": 5, "cache_write": 7},
        ),
        (
            {
                "promptTokenCount": 40,
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 30},
                    {"modality": "AUDIO", "tokenCount": 10},
                ],
            },
            {"input": 40},
        ),
    ],
)
def test_a_providers_nested_usage_is_read_key_by_key(details: dict[str, Any], counted: dict[str, int]) -> None:
    assert classes(details) == counted
    assert not read_tokens("o", details).bad


def test_units_inside_an_object_are_units() -> None:
    tokens = read_tokens("o", {"input": 5, "server_tool_use": {"web_search_requests": 2}})
    assert (tokens.total, tokens.keys, tokens.counts) == (5, ("input", "server_tool_use.web_search_requests"), (5, 2))


nested = st.recursive(
    st.integers() | st.text(max_size=3) | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=8), nested, max_size=4))
def test_whatever_shape_usage_has_it_is_read_or_named(details: dict[str, Any]) -> None:
    tokens = read_tokens("o", details)
    assert sum(tokens.classes) == (tokens.total or 0)
    assert tokens.bad <= bool(tokens.problems)
