"""The rows of the table as cards, for phones: a page of rows is drawn both ways, and the width of the window decides
which is seen. No answer of the browser tells a page how wide its window is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import streamlit as st

from billing_core.types import UsageEvent
from components.shared.colours import STATUS_MARKS
from components.shared.formats import UNKNOWN, middle_cut, moment, short_credits, short_usd
from components.shared.links import EVENT_PARAMETER

GRID, CARDS, STRIP = "usage-grid", "usage-cards", "usage-strip"
"""Keys of the containers that the width of the window shows, hides or moves."""

LONGEST_WHO = 34

STYLE = f"""<style>
@media (max-width: 599px) {{
  div:has(> .st-key-{GRID}) {{ display: none; }}
  div:has(> .st-key-{STRIP}) {{ order: 1; }}
}}
@media (min-width: 600px) {{ div:has(> .st-key-{CARDS}) {{ display: none; }} }}
.usage-card {{ display: grid; grid-template-columns: 1fr auto; gap: 0.1rem 0.75rem; padding: 0.6rem 0.25rem;
  border-bottom: 1px solid rgba(128, 128, 128, 0.35); color: inherit !important; text-decoration: none !important; }}
.usage-card span:nth-child(even) {{ text-align: right; font-variant-numeric: tabular-nums; }}
.usage-card small {{ opacity: 0.8; }}
.usage-card i {{ font-style: normal; color: #fff; border-radius: 0.6rem; padding: 0.05rem 0.5rem; font-size: 0.85em; }}
</style>"""


def cards(events: Sequence[UsageEvent], zone: ZoneInfo, query: Mapping[str, Sequence[str]]) -> str:
    """A page of events as HTML: a card each, which leads to its explanation in the view with the parameters `query`."""
    return STYLE + "".join(_card(event, zone, query) for event in events)


def _card(event: UsageEvent, zone: ZoneInfo, query: Mapping[str, Sequence[str]]) -> str:
    mark = STATUS_MARKS[event.sync_status]
    address = urlencode({**query, EVENT_PARAMETER: event.id}, doseq=True)
    chatflow = event.chatflow_name or event.chatflow_id or UNKNOWN
    who = " · ".join((event.organization_id or UNKNOWN, event.user_id or UNKNOWN))
    cells = (
        f'<i style="background:{mark.colour}">{escape(mark.text)}</i>',
        f"<small>{moment(event.timestamp, zone)}</small>",
        f"<b>{escape(middle_cut(chatflow, LONGEST_WHO))}</b>",
        f"<b>{escape(short_credits(event.credits.total))}</b> <small>credits</small>",
        f"<small>{escape(middle_cut(who, LONGEST_WHO))}</small>",
        escape(short_usd(event.amount_usd)),
    )
    inside = "".join(f"<span>{cell}</span>" for cell in cells)
    return f'<a class="usage-card" href="?{escape(address)}" target="_self">{inside}</a>'


def draw_cards(events: Sequence[UsageEvent], zone: ZoneInfo) -> None:
    """Draw a page of events as cards, where the window is narrow."""
    said = {name: st.query_params.get_all(name) for name in st.query_params}
    with st.container(key=CARDS):
        st.html(cards(events, zone, said))
