"""Parents that repeat their children's usage."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.langfuse.double_count import Node, double_counted


def node(identity: str, parent: str | None, cost: str | None = None, tokens: int | None = None) -> Node:
    return Node("t", identity, parent, None if cost is None else Decimal(cost), tokens)


def test_a_parent_that_costs_what_its_children_cost_is_suspect() -> None:
    found = double_counted([node("root", None, "1.00"), node("a", "root", "0.40"), node("b", "root", "0.58")])
    [root] = found["t"]
    assert root.id == "root"
    assert root.sentence == (
        "observation root has 1 USD and the observations below it 0.98 USD: probably counted twice"
    )


def test_descendants_at_any_depth_count() -> None:
    chain = [node("root", None, "1"), node("tool", "root"), node("llm", "tool", "1")]
    assert list(double_counted(chain)) == ["t"]


def test_a_parent_with_its_own_share_is_not_suspect() -> None:
    assert double_counted([node("root", None, "1.00"), node("a", "root", "0.94")]) == {}


@pytest.mark.parametrize(("own", "below"), [(None, None), ("5", "1"), (None, "1"), ("5", None), ("0", "0")])
def test_a_parent_that_repeats_its_childrens_tokens_is_suspect_whatever_either_costs(
    own: str | None, below: str | None
) -> None:
    assert double_counted([node("root", None, own, 100), node("a", "root", below, 60), node("b", "root", below, 40)])


def test_two_calls_under_a_row_without_usage_are_not_suspect() -> None:
    assert double_counted([node("root", None), node("a", "root", "0.02", 90), node("b", "root", "0.01", 60)]) == {}


@given(st.lists(st.integers(100, 10_000), min_size=1, max_size=5), st.integers(1, 4))
def test_every_level_that_repeats_the_one_below_is_suspect(tokens: list[int], levels: int) -> None:
    wrappers = [node(f"w{n}", f"w{n - 1}" if n else None, None, sum(tokens)) for n in range(levels)]
    calls = [node(f"c{n}", f"w{levels - 1}", "0.01", count) for n, count in enumerate(tokens)]
    [found] = double_counted([*wrappers, *calls]).values()
    assert [one.id for one in found] == [one.id for one in wrappers]


@given(st.lists(st.integers(100, 10_000), min_size=2, max_size=5), st.integers(50, 5_000))
def test_what_children_of_children_used_on_top_does_not_hide_a_repeat(tokens: list[int], deeper: int) -> None:
    calls = [node(f"c{n}", "root", None, count) for n, count in enumerate(tokens)]
    found = double_counted([node("root", None, None, sum(tokens)), *calls, node("tool", "c0", None, deeper)])
    assert "root" in [one.id for one in found["t"]]


def test_a_cycle_ends() -> None:
    assert double_counted([node("a", "b", "1"), node("b", "a", "1"), node("self", "self", "1")]) == {}
