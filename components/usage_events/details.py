"""The explanation of an event in a dialog: every step from the trace to its credits, as `explain` prints it."""

from __future__ import annotations

from typing import Literal
from zoneinfo import ZoneInfo

import streamlit as st

from billing_core.errors import BillingError
from billing_core.service import BillingService
from billing_core.usage_events.explain import FLAG_MEANINGS, EventExplanation
from components.shared import sign_in
from components.shared.colours import CREDIT_PARTS, STATUS_MARKS
from components.shared.formats import credits_text, duration, moment, usd
from components.shared.links import EVENT_PARAMETER
from components.shared.notice import notice_of_error, plain
from components.usage_events import texts


def open_event(event_id: str) -> None:
    """Open the dialog of an event; the address then leads to it."""
    st.query_params[EVENT_PARAMETER] = event_id


def close_event() -> None:
    """Close the dialog of an event."""
    st.query_params.pop(EVENT_PARAMETER, None)


def requested_event() -> str | None:
    """The id of the event whose dialog the address asks for; `None` if it asks for none."""
    value = st.query_params.get(EVENT_PARAMETER)
    return value or None


@st.dialog("Usage event", width="large", position="right", icon=":material/receipt_long:", on_dismiss=close_event)
def show_event(service: BillingService, event_id: str) -> None:
    """Draw the dialog of an event. Asks for the reader again: a dialog runs on its own."""
    principal = sign_in.guard()
    try:
        explanation = service.explain(event_id, principal)
    except BillingError as error:
        notice_of_error(error)
        return
    _facts(explanation, service.settings.zone)
    _steps(explanation)
    st.subheader("Metadata of the trace", anchor=False, divider="gray")
    if explanation.metadata:
        st.json(dict(explanation.metadata), expanded=1)
    else:
        st.caption(texts.NO_METADATA)


def _facts(explanation: EventExplanation, zone: ZoneInfo) -> None:
    event = explanation.event
    mark = STATUS_MARKS[event.sync_status]
    st.code(event.id, language=None, wrap_lines=True)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge(mark.text, color=_BADGES[mark.word], help=mark.meaning)
        st.caption(f"{moment(event.timestamp, zone)} {zone.key} · {duration(event.latency_seconds)}", width="content")
        if event.trace_url:
            st.link_button("Open in Langfuse", event.trace_url, icon=":material/open_in_new:", type="tertiary")
    if event.sync_error:
        st.error(plain(event.sync_error), icon=":material/error:")
    tiles = st.grid("auto", min_column_width=150)
    for part in CREDIT_PARTS:
        tiles.metric(f"{part.label}, credits", credits_text(getattr(event.credits, part.field)))
    tiles.metric("Total credits", credits_text(event.credits.total))
    tiles.metric("Amount", usd(event.amount_usd).replace("$", r"\$"), help="US dollars")
    for flag in event.flags:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.badge(flag.value.replace("_", " "), icon=":material/flag:", color="orange")
            st.text(FLAG_MEANINGS[flag], width="stretch")


_BADGES: dict[str, Literal["orange", "blue", "green", "red", "gray"]] = {
    "pending": "orange",
    "sending": "blue",
    "processed": "green",
    "confirmed": "green",
    "error": "red",
    "excluded": "gray",
}


def _steps(explanation: EventExplanation) -> None:
    st.subheader("Step by step", anchor=False, divider="gray")
    for number, step in enumerate(explanation.steps, start=1):
        st.markdown(f"**{number}. {plain(step.name)}**")
        st.text(step.summary)
        if step.lines:
            st.code("\n".join(step.lines), language=None, wrap_lines=True)
