"""The list of earlier imports, each with a button to undo it."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from billing_core.access import Principal, Role
from billing_core.errors import BillingError
from billing_core.imports.model import ImportRecord
from billing_core.service import BillingService
from components.imports import texts
from components.imports.state import SAID, UNDOING, close_dialogs
from components.imports.texts import record_label, record_rows, undo_text, undone_text
from components.shared import sign_in
from components.shared.notice import plain
from components.shared.outcome import remember_outcome
from components.shared.widgets import table

SHOWN = 100


def import_log(service: BillingService, principal: Principal) -> None:
    """Draw the list of imports, newest first, with a button to undo those in force."""
    st.header("Earlier imports", anchor=False)
    records = service.imports.imports(principal, SHOWN)
    if not records:
        st.caption(texts.NO_IMPORTS)
        return
    rows = record_rows(records, service.settings.zone)
    table(
        rows, alt="Earlier imports, newest first", key="import-log", right=("New", "Changed", "Unchanged", "Rejected")
    )
    if len(records) == SHOWN:
        st.caption(f"The newest {SHOWN}. The audit log has every import.")
    _chooser(service, [one for one in records if one.undone_at is None])
    asked = next((one for one in records if one.import_id == UNDOING.get()), None)
    if asked is not None:
        st.dialog("Undo this import?", icon=":material/undo:", on_dismiss=close_dialogs)(_confirm)(service, asked)


def _chooser(service: BillingService, standing: Sequence[ImportRecord]) -> None:
    if not standing:
        return
    zone = service.settings.zone
    labels = {one.import_id: record_label(one, zone) for one in standing}
    with st.container(horizontal=True, vertical_alignment="bottom", key="import-undo-row"):
        chosen = st.selectbox(
            "Undo an import",
            list(labels),
            index=None,
            key="import-undo-choice",
            format_func=labels.__getitem__,
            placeholder="Choose an import",
            width=480,
        )
        st.button(
            "Undo…",
            icon=":material/undo:",
            key="import-undo",
            disabled=chosen is None,
            on_click=UNDOING.put,
            args=(chosen,),
        )


def _confirm(service: BillingService, record: ImportRecord) -> None:
    """What an undo does, and the button."""
    principal = sign_in.guard(Role.ADMIN)
    if UNDOING.get() != record.import_id:
        st.rerun()
    st.markdown(f"**{plain(record_label(record, service.settings.zone))}**")
    st.markdown(plain(undo_text(record)))
    with st.container(horizontal=True):
        sure = st.button("Undo the import", type="primary", icon=":material/undo:", key="import-undo-confirm")
        st.button("Cancel", key="import-undo-cancel", on_click=close_dialogs)
    if sure:
        with st.spinner(texts.UNDOING):
            _undo(service, principal, record)
        st.rerun()


def _undo(service: BillingService, principal: Principal, record: ImportRecord) -> None:
    """As one revision; draws nothing, so that no click can stop it halfway."""
    try:
        done = service.imports.undo(record.import_id, principal)
    except BillingError as error:
        remember_outcome(SAID, f"Not undone, nothing has changed: {error}", is_done=False)
    else:
        remember_outcome(SAID, undone_text(done, record.file_name), is_done=True)
    close_dialogs()
