"""Finds observations whose usage probably repeats that of the observations below them.

Agent frameworks and wrappers sometimes report a parent's usage as the sum of its children's. Langfuse adds both up;
so do we, and say so: which one to leave out is an operator's decision. Source: section 2.2 of the Langfuse notes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

TOLERANCE_PERCENT = 5


class Node(NamedTuple):
    """An observation in the tree of its trace."""

    trace_id: str
    id: str
    parent_id: str | None
    cost_usd: Decimal | None
    tokens: int | None


class Repeat(NamedTuple):
    """An observation whose usage repeats others: its id, and a sentence that says so."""

    id: str
    sentence: str


def double_counted(nodes: Iterable[Node]) -> dict[str, list[Repeat]]:
    """Trace id → observations whose own usage is, within 5 %, the sum of the observations below them.

    Values are compared one by one, tokens and cost: a repeated row often has no price, or another one. What a row
    below repeats of its own children counts once. Rows below are all descendants, or only the nearest with usage.
    """
    traces: dict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        traces[node.trace_id].append(node)
    found = {trace_id: _repeats(trace) for trace_id, trace in traces.items()}
    return {trace_id: repeats for trace_id, repeats in found.items() if repeats}


def _repeats(trace: list[Node]) -> list[Repeat]:
    parent_of = {node.id: node.parent_id for node in trace}
    found: dict[str, Repeat] = {}
    for unit, own in (
        ("tokens", {node.id: Decimal(node.tokens or 0) for node in trace}),
        ("USD", {node.id: node.cost_usd or Decimal(0) for node in trace}),
    ):
        for identity, below in _repeated(parent_of, own).items():
            sentence = (
                f"observation {identity} has {own[identity].normalize():f} {unit} and the observations below it "
                f"{below.normalize():f} {unit}: probably counted twice"
            )
            found.setdefault(identity, Repeat(identity, sentence))
    return sorted(found.values())


def _repeated(parent_of: dict[str, str | None], own: dict[str, Decimal]) -> dict[str, Decimal]:
    """Rows with about the value of what is below them, from the leaves up, with that value.

    Rows on a cycle never become a leaf and are left out.
    """
    open_children: dict[str, int] = defaultdict(int)
    for parent in parent_of.values():
        if parent in parent_of and parent is not None:
            open_children[parent] += 1
    below: dict[str, Decimal] = defaultdict(Decimal)
    nearest: dict[str, Decimal] = defaultdict(Decimal)
    found: dict[str, Decimal] = {}
    ready = [identity for identity in parent_of if not open_children[identity]]
    while ready:
        identity = ready.pop()
        value = own[identity]
        alike = next((sum_ for sum_ in (below[identity], nearest[identity]) if _is_about(value, sum_)), None)
        if alike is not None:
            found[identity] = alike
        parent = parent_of[identity]
        if parent in parent_of and parent is not None:
            below[parent] += below[identity] + (value if alike is None else 0)
            nearest[parent] += value or nearest[identity]
            open_children[parent] -= 1
            if not open_children[parent]:
                ready.append(parent)
    return found


def _is_about(value: Decimal, total: Decimal) -> bool:
    return value > 0 and abs(total - value) * 100 <= value * TOLERANCE_PERCENT
