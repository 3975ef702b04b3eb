"""Top movers: the organizations whose credits rose and fell most against the period before, in credits and in
percent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import streamlit as st

from billing_core.organizations.figures import Move, OrganizationFigures, Statistics, movers
from billing_core.organizations.table import label
from components.organizations import texts
from components.organizations.state import organization_link
from components.shared.formats import change, short_credits

SHOWN = 5
"""Organizations per list."""

LEAST_SHARE = Decimal("0.01")
LEAST_CREDITS = Decimal(1000)
"""A percentage of next to nothing is no news: relative moves need so much of the total before, or so many credits."""


@dataclass(frozen=True, slots=True)
class Movers:
    """The organizations with the largest changes of credits, largest first."""

    up: tuple[Move, ...]
    down: tuple[Move, ...]
    relative_up: tuple[Move, ...]
    relative_down: tuple[Move, ...]


def top_movers(statistics: Statistics, *, shown: int = SHOWN) -> Movers:
    """The `shown` largest changes of each kind; nothing where there is no period before."""
    moves = movers(statistics.organizations)
    whole = Decimal(0) if statistics.previous_total is None else statistics.previous_total.credits.total
    telling = [move for move in moves if move.relative is not None and _is_notable(move, whole)]
    telling.sort(key=lambda move: abs(move.relative or Decimal(0)), reverse=True)
    return Movers(
        up=tuple(move for move in moves if move.change > 0)[:shown],
        down=tuple(move for move in moves if move.change < 0)[:shown],
        relative_up=tuple(move for move in telling if move.change > 0)[:shown],
        relative_down=tuple(move for move in telling if move.change < 0)[:shown],
    )


def _is_notable(move: Move, whole: Decimal) -> bool:
    return move.before >= LEAST_CREDITS or move.before >= whole * LEAST_SHARE


def move_text(move: Move, one: OrganizationFigures) -> str:
    """A change of an organization's credits: `+1,234.00 credits (+12.3 %)`; one that appeared or vanished is named as
    such.
    """
    size = f"{'+' if move.change > 0 else ''}{short_credits(move.change)} credits"
    if one.previous is not None and not one.previous.events:
        return f"new: {size}"
    if not one.now.events:
        return f"became inactive: {size}"
    return f"{size} ({change(move.now, move.before)})"


def movers_panel(statistics: Statistics, names: Mapping[str, str]) -> None:
    """Draw the four lists of top movers; each line leads to the organization's own page."""
    if statistics.previous_window is None:
        return
    st.header("Top movers", anchor=False)
    found = top_movers(statistics)
    if not found.up and not found.down:
        st.caption(texts.NO_MOVERS)
        return
    figures = {one.organization_id: one for one in statistics.organizations}
    left, right = st.columns(2, gap="medium")
    with left:
        st.markdown("**By credits**")
        _list("Up", found.up, figures, names)
        _list("Down", found.down, figures, names)
    with right:
        st.markdown("**By percentage**", help=texts.RELATIVE_NOTE)
        _list("Up", found.relative_up, figures, names)
        _list("Down", found.relative_down, figures, names)
        st.caption(texts.RELATIVE_NOTE)


def _list(
    title: str, moves: Sequence[Move], figures: Mapping[str | None, OrganizationFigures], names: Mapping[str, str]
) -> None:
    icon = ":material/trending_up:" if title == "Up" else ":material/trending_down:"
    st.caption(title if moves else f"{title}: none")
    for move in moves:
        text = move_text(move, figures[move.organization_id])
        organization_link(f"{label(move.organization_id, names)}: {text}", move.organization_id, icon=icon)
