"""Dialogs of the Alerts page: add or change a rule, mute it, remove it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import streamlit as st

from billing_core.access import Principal, Role
from billing_core.alerts.model import (
    LONGEST_NAME,
    LONGEST_REASON,
    MOST_DAYS,
    MOST_HOURS,
    OF_USAGE,
    WATCHED,
    Kind,
    Measure,
    Process,
    Rule,
    Terms,
)
from billing_core.alerts.service import Preview
from billing_core.errors import BillingError
from billing_core.service import BillingService
from billing_core.types import GetUsageEventsParams, plain_decimal
from billing_core.usage_events.explore_model import Dimension
from components.alerts import texts
from components.alerts.state import DIALOG, REFUSED, SAID, Act, OpenDialog
from components.shared import sign_in
from components.shared.notice import notice_of_error, plain
from components.shared.outcome import remember_outcome

TITLES = {Act.ADD: "Add a rule", Act.EDIT: "Change a rule", Act.MUTE: "Mute a rule", Act.REMOVE: "Remove a rule"}
ICONS = {
    Act.ADD: ":material/add_alert:",
    Act.EDIT: ":material/edit:",
    Act.MUTE: ":material/notifications_paused:",
    Act.REMOVE: ":material/delete:",
}
MUTES = {"1 hour": 1, "1 day": 24, "3 days": 72, "1 week": 168, "30 days": 720}
"""Choices of how long to mute → hours."""


def open_dialog(act: Act, rule: Rule | None = None) -> None:
    """Open a dialog with the next run. For callbacks."""
    st.session_state.pop(REFUSED, None)
    for key in [key for key in st.session_state if str(key).startswith("alert-form-")]:
        del st.session_state[key]
    DIALOG.put(OpenDialog(act, rule))


def dialogs(service: BillingService) -> None:
    """Draw the dialog that is open, if one is."""
    asked = DIALOG.get()
    if asked is not None:
        dialog = st.dialog(TITLES[asked.act], width="large", icon=ICONS[asked.act], on_dismiss=DIALOG.drop)
        dialog(_dialog)(service, asked)


def _dialog(service: BillingService, asked: OpenDialog) -> None:
    principal = sign_in.guard(Role.ADMIN, Role.FINANCE)
    if DIALOG.get() is None:  # done a moment ago: close, and draw the page as it is now
        st.rerun()
    if asked.act in {Act.ADD, Act.EDIT}:
        _form(service, principal, asked.rule)
    elif asked.rule is not None:
        st.markdown(f"**{plain(asked.rule.name)}**")
        (_mute if asked.act is Act.MUTE else _remove)(service, principal, asked.rule)


def _buttons(label: str, icon: str, act: Callable[[], str], *, disabled: bool = False) -> None:
    """The button that acts, and the one that does not; why it was refused stands above them."""
    if (refused := st.session_state.get(REFUSED)) is not None:
        st.error(plain(refused), icon=":material/error:")

    def clicked() -> None:
        try:
            said = act()
        except BillingError as error:
            st.session_state[REFUSED] = str(error)
        else:
            st.session_state.pop(REFUSED, None)
            remember_outcome(SAID, said, is_done=True)
            DIALOG.drop()

    with st.container(horizontal=True):
        st.button(label, type="primary", icon=icon, key="alert-form-do", on_click=clicked, disabled=disabled)
        st.button("Cancel", key="alert-form-cancel", on_click=DIALOG.drop)


# ── add, change ──────────────────────────────────────────────────────────────────────────────────


def _form(service: BillingService, principal: Principal, rule: Rule | None) -> None:
    known = None if rule is None else rule.terms
    name = st.text_input(
        "Name",
        "" if rule is None else rule.name,
        key="alert-form-name",
        max_chars=LONGEST_NAME,
        placeholder=texts.NAME_EXAMPLE,
    )
    kinds = [kind for kind in Kind if principal.organizations is None or kind in OF_USAGE]
    kind = st.selectbox(
        "Alerts when",
        kinds,
        index=kinds.index(known.kind) if known is not None and known.kind in kinds else 0,
        key="alert-form-kind",
        format_func=texts.KIND_WORDS.__getitem__,
        filter_mode=None,
    )
    st.caption(texts.KIND_NOTES[kind])
    values = {"kind": kind, **_terms_boxes(service, principal, kind, known)}
    preview = _preview(service, principal, values, is_new=rule is None)
    terms, found = preview if preview is not None else (None, None)
    anyway = False
    if found is not None and found.is_too_much and kind is not Kind.SUMMARY:
        st.warning(plain(texts.too_much_text(found)), icon=":material/warning:")
        anyway = st.checkbox(texts.ANYWAY, key="alert-form-anyway")

    def save() -> str:
        assert terms is not None  # noqa: S101 - the button is disabled without
        if rule is None:
            return f"Added: {service.alerts.add(principal, name, terms, anyway=anyway).name}"
        return f"Changed: {service.alerts.edit(principal, rule.id, name, terms, anyway=anyway).name}"

    is_ready = terms is not None and bool(name.strip()) and (found is None or not found.is_too_much or anyway)
    _buttons("Save", ":material/check:", save, disabled=not is_ready)
    if terms is not None and not name.strip():
        st.caption("A rule needs a name.")


def _terms_boxes(service: BillingService, principal: Principal, kind: Kind, known: Terms | None) -> dict[str, Any]:
    """The boxes that a kind of rule needs, and what they say."""
    values: dict[str, Any] = {}
    if kind in {Kind.THRESHOLD, Kind.UNUSUAL}:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            by = st.selectbox(
                "Whose usage",
                WATCHED,
                index=WATCHED.index(known.by) if known is not None else 0,
                key="alert-form-by",
                format_func=texts.BY_WORDS.__getitem__,
                filter_mode=None,
                width=200,
            )
            values |= {"by": by, "subject": _subject_box(service, principal, by, known)}
    if kind is Kind.SUMMARY:
        values["subject"] = _subject_box(service, principal, Dimension.ORGANIZATION, known)
    if kind is Kind.THRESHOLD:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            limit = None if known is None or known.above is None else plain_decimal(known.above)
            values["above"] = st.text_input("More than", limit or "", key="alert-form-above", width=160)
            values["measure"] = st.selectbox(
                "Of",
                list(Measure),
                index=0 if known is None else list(Measure).index(known.measure),
                key="alert-form-measure",
                format_func=texts.MEASURE_WORDS.__getitem__,
                filter_mode=None,
                width=160,
            )
            values["days"] = st.number_input(
                "Within days",
                1,
                MOST_DAYS,
                1 if known is None else known.days,
                key="alert-form-days",
                help=texts.DAYS_NOTE,
                width=160,
            )
    if kind is Kind.FAILURE:
        usual = list(Process) if known is None or known.kind is not kind else list(known.processes)
        values["process"] = st.multiselect(
            "Work", list(Process), usual, key="alert-form-process", format_func=texts.process_text
        )
    if kind in {Kind.UNSENT, Kind.DEADLINE}:
        label = "Hours" if kind is Kind.UNSENT else "Hours before"
        usual_hours = known.hours if known is not None and known.kind is kind else 24 if kind is Kind.UNSENT else 72
        values["hours"] = st.number_input(
            label, 1, MOST_HOURS, usual_hours, key=f"alert-form-hours-{kind.value}", width=160
        )
    return values


def _subject_box(service: BillingService, principal: Principal, by: Dimension, known: Terms | None) -> str | None:
    """One subject by name; none: each of them."""
    offered = [name for name, _ in service.facets(GetUsageEventsParams(), principal, by.value) if name]
    chosen = known.subject if known is not None and known.by is by else None
    if chosen is not None and chosen not in offered:
        offered.insert(0, chosen)
    found: str | None = st.selectbox(
        f"Only this {by.value}",
        offered,
        index=None if chosen is None else offered.index(chosen),
        key=f"alert-form-subject-{by.value}",
        placeholder=f"Each {by.value}",
        accept_new_options=True,
        help=texts.SUBJECT_NOTE,
        width=320,
    )
    return found


def _preview(
    service: BillingService, principal: Principal, values: dict[str, Any], *, is_new: bool
) -> tuple[Terms, Preview | None] | None:
    """The terms with what they would tell now; `None` while something is missing or wrong."""
    if values["kind"] is Kind.THRESHOLD and not values["above"].strip():
        st.caption("A limit is needed." if is_new else "")
        return None
    if values["kind"] is Kind.FAILURE and not values["process"]:
        st.caption("Choose at least one kind of work.")
        return None
    try:
        terms = Terms.parse(values)
        with st.spinner(texts.CALCULATING):
            found = service.alerts.preview(principal, terms)
    except BillingError as error:
        notice_of_error(error)
        return None
    st.info(plain(texts.preview_text(found, terms.kind, terms.by)), icon=":material/preview:")
    return terms, found


# ── mute, remove ─────────────────────────────────────────────────────────────────────────────────


def _mute(service: BillingService, principal: Principal, rule: Rule) -> None:
    st.caption(texts.MUTE_NOTE)
    length = st.selectbox("For", list(MUTES), index=1, key="alert-form-length", filter_mode=None, width=200)
    reason = st.text_input("Reason", key="alert-form-reason", max_chars=LONGEST_REASON)

    def mute() -> str:
        until: datetime = service.now() + timedelta(hours=MUTES[length])
        service.alerts.mute(principal, rule.id, until, reason)
        return f"Muted for {length}: {rule.name}"

    _buttons("Mute", ICONS[Act.MUTE], mute, disabled=not reason.strip())
    if not reason.strip():
        st.caption(texts.MUTE_NEEDS_REASON)


def _remove(service: BillingService, principal: Principal, rule: Rule) -> None:
    st.caption(texts.REMOVE_NOTE)

    def remove() -> str:
        service.alerts.remove(principal, rule.id)
        return f"Removed: {rule.name}"

    _buttons("Remove", ICONS[Act.REMOVE], remove)
