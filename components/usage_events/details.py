"""The explanation of an event in a drawer: what was used, what it costs, where it is; and, folded away, every step as
`explain` prints it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal
from zoneinfo import ZoneInfo

import streamlit as st

from billing_core.errors import BillingError
from billing_core.service import BillingService
from billing_core.types import UsageEvent
from billing_core.usage_events.explain import FLAG_MEANINGS, EventExplanation
from components.shared import sign_in
from components.shared.colours import CREDIT_PARTS, STATUS_MARKS
from components.shared.formats import UNKNOWN, count, credits_text, duration, moment, short_credits, short_usd, usd
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


DRAWER_PIXELS = 640


@st.dialog("Usage event", width=DRAWER_PIXELS, position="right", icon=":material/receipt_long:", on_dismiss=close_event)
def show_event(service: BillingService, event_id: str) -> None:
    """Draw the dialog of an event. Asks for the reader again: a dialog runs on its own."""
    principal = sign_in.guard()
    try:
        explanation = service.explain(event_id, principal)
    except BillingError as error:
        notice_of_error(error)
        return
    event, zone = explanation.event, service.settings.zone
    _headline(event, zone)
    _section(texts.WHAT_WAS_USED)
    _pairs(used(event))
    _section(texts.WHAT_IT_COSTS)
    _costs(explanation)
    _section(texts.WHERE_IT_IS)
    _whereabouts(event, zone)
    with st.expander(texts.EVERY_STEP, icon=":material/data_object:"):
        st.code(event.id, language=None, wrap_lines=True)
        _steps(explanation)
        st.markdown("**Metadata of the trace**")
        if explanation.metadata:
            st.json(dict(explanation.metadata), expanded=1)
        else:
            st.caption(texts.NO_METADATA)


def _section(title: str) -> None:
    st.subheader(title, anchor=False, divider="gray")


def _headline(event: UsageEvent, zone: ZoneInfo) -> None:
    mark = STATUS_MARKS[event.sync_status]
    with st.container(horizontal=True, vertical_alignment="center"):
        figures = f"{short_credits(event.credits.total)} credits · {short_usd(event.amount_usd)}"
        st.markdown(f"### {plain(figures)}", width="content")
        st.badge(mark.text, color=_BADGES[mark.word], help=mark.meaning)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(plain(f"{moment(event.timestamp, zone)} {zone.key} · {event.id}"), width="content")
        if event.trace_url:
            st.link_button("Open in Langfuse", event.trace_url, icon=":material/open_in_new:", type="tertiary")


def used(event: UsageEvent) -> dict[str, str]:
    """Who used what: label → value, in words and whole, without what there is not."""
    chatflow = event.chatflow_name or event.chatflow_id
    tokens = count(event.tokens_total)
    if event.tokens_in is not None and event.tokens_out is not None:
        tokens += f" ({count(event.tokens_in)} in, {count(event.tokens_out)} out)"
    found = {
        "Organization": event.organization_id or UNKNOWN,
        "User": event.user_id or UNKNOWN,
        "Chatflow": chatflow or UNKNOWN,
        "Chatflow id": event.chatflow_id if event.chatflow_id != chatflow else None,
        "Session": event.session_id,
        "Environment": event.environment,
        "Models": ", ".join(event.models),
        "Tokens": tokens,
        "Time": duration(event.latency_seconds),
        "Storage": None if event.storage_gb is None else f"{credits_text(event.storage_gb)} GB-months",
        "Cost in Langfuse": None if event.cost_usd is None else usd(event.cost_usd),
    }
    return {label: value for label, value in found.items() if value}


def _pairs(pairs: Mapping[str, str]) -> None:
    grid = st.grid("auto", min_column_width=240, gap="small")
    for label, value in pairs.items():
        with grid.container(gap=None):
            st.caption(label)
            st.text(value)


def _costs(explanation: EventExplanation) -> None:
    """Each type of credits with its arithmetic, then the sum and its price."""
    event, steps = explanation.event, {step.name: step for step in explanation.steps}
    for part in CREDIT_PARTS:
        credits_ = getattr(event.credits, part.field)
        step = steps.get(part.label)
        if step is None or (not credits_ and not step.lines):
            continue
        st.markdown(f"**{part.label}: {credits_text(credits_)} credits**")
        # The last line is how the sum was rounded: that stands in the steps.
        st.text("\n".join(step.lines[:-1]) or step.summary)
    st.markdown(f"**Total: {credits_text(event.credits.total)} credits, {plain(usd(event.amount_usd))}**")
    st.text("\n".join(steps["Total"].lines))
    st.caption(plain(f"Rate card: {steps['Rate card'].summary}"))


def _whereabouts(event: UsageEvent, zone: ZoneInfo) -> None:
    mark = STATUS_MARKS[event.sync_status]
    st.text(f"{mark.word.capitalize()}. {mark.meaning}")
    if event.sync_error:
        st.error(plain(event.sync_error), icon=":material/error:")
    synced = None if event.synced_at is None else f"{moment(event.synced_at, zone)} {zone.key}"
    found = {
        "Customer billed": event.customer_id or UNKNOWN,
        "Meter event": event.meter_event_identifier,
        "Last answer from Stripe": synced,
    }
    _pairs({label: value for label, value in found.items() if value})
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
    for number, step in enumerate(explanation.steps, start=1):
        st.markdown(f"**{number}. {plain(step.name)}**")
        st.text(step.summary)
        if step.lines:
            st.code("\n".join(step.lines), language=None, wrap_lines=True)
