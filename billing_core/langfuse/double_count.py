"""Rows whose usage probably repeats that of the rows below them.

Agent frameworks and wrappers sometimes report a parent's usage as the sum of its children's. Langfuse adds both up;
so do we, and say so: which one to leave out is an operator's decision. Source: section 2.2 of the Langfuse notes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

__all__ = ["Node", "double_counted"]

TOLERANCE_PERCENT = 5


class Node(NamedTuple):
    """An observation in its tree."""

    trace_id: str
    id: str
    parent_id: str | None
    cost_usd: Decimal | None
    tokens: int | None


def double_counted(nodes: Iterable[Node]) -> dict[str, list[str]]:
    """Trace id → a sentence per row whose descendants, at any depth, sum to within 5 % of its own value.

    The value is the cost, or the tokens in traces where nothing has a cost.
    """
    traces: dict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        traces[node.trace_id].append(node)
    found = {trace_id: _sentences(trace) for trace_id, trace in traces.items()}
    return {trace_id: sentences for trace_id, sentences in found.items() if sentences}


def _sentences(trace: list[Node]) -> list[str]:
    by_cost = any(node.cost_usd for node in trace)
    unit = "USD" if by_cost else "tokens"
    own = {node.id: (node.cost_usd if by_cost else Decimal(node.tokens or 0)) or Decimal(0) for node in trace}
    below = _sums_below({node.id: node.parent_id for node in trace}, own)
    return sorted(
        f"observation {identity} has {value.normalize():f} {unit} and the observations below it "
        f"{below[identity].normalize():f} {unit}: probably counted twice"
        for identity, value in own.items()
        if value > 0 and abs(below.get(identity, Decimal(0)) - value) * 100 <= value * TOLERANCE_PERCENT
    )


def _sums_below(parent_of: dict[str, str | None], own: dict[str, Decimal]) -> dict[str, Decimal]:
    """Sum over all descendants, from the leaves up; rows on a cycle never become a leaf and are left out."""
    open_children: dict[str, int] = defaultdict(int)
    for parent in parent_of.values():
        if parent in parent_of and parent is not None:
            open_children[parent] += 1
    sums: dict[str, Decimal] = defaultdict(Decimal)
    done: dict[str, Decimal] = {}
    ready = [identity for identity in parent_of if not open_children[identity]]
    while ready:
        identity = ready.pop()
        done[identity] = sums[identity]
        parent = parent_of[identity]
        if parent in parent_of and parent is not None:
            sums[parent] += sums[identity] + own[identity]
            open_children[parent] -= 1
            if not open_children[parent]:
                ready.append(parent)
    return done
