"""Parents that repeat their children's usage."""

from __future__ import annotations

from decimal import Decimal

from billing_core.langfuse.double_count import Node, double_counted


def node(identity: str, parent: str | None, cost: str | None = None, tokens: int | None = None) -> Node:
    return Node("t", identity, parent, None if cost is None else Decimal(cost), tokens)


def test_a_parent_that_costs_what_its_children_cost_is_suspect() -> None:
    found = double_counted([node("root", None, "1.00"), node("a", "root", "0.40"), node("b", "root", "0.58")])
    assert found == {"t": ["observation root has 1 USD and the observations below it 0.98 USD: probably counted twice"]}


def test_descendants_at_any_depth_count() -> None:
    chain = [node("root", None, "1"), node("tool", "root"), node("llm", "tool", "1")]
    assert list(double_counted(chain)) == ["t"]


def test_a_parent_with_its_own_share_is_not_suspect() -> None:
    assert double_counted([node("root", None, "1.00"), node("a", "root", "0.94")]) == {}


def test_tokens_decide_where_nothing_has_a_cost() -> None:
    assert double_counted([node("root", None, None, 100), node("a", "root", None, 100)])
    assert not double_counted([node("root", None, "5", 100), node("a", "root", "1", 100)])


def test_a_cycle_ends() -> None:
    assert double_counted([node("a", "b", "1"), node("b", "a", "1"), node("self", "self", "1")]) == {}
