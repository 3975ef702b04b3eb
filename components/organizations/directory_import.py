"""Imports the organization directory from a file: what it would do first, then all of it or nothing."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from billing_core.access import Principal, Role
from billing_core.errors import BillingError
from billing_core.organizations.directory import DirectoryPreview
from billing_core.organizations.directory_file import Parsed
from billing_core.service import BillingService
from billing_core.values.counts import count_of
from components.organizations import texts
from components.organizations.directory_rows import rejected_rows, step_rows
from components.organizations.directory_state import SAID
from components.organizations.texts import applied_text, import_text
from components.shared import sign_in
from components.shared.notice import notice_of_error, plain
from components.shared.outcome import remember_outcome
from components.shared.widgets import quiet, table

LARGEST_MB = 5
SHOWN_ROWS = 200

READ = "org.directory-read"
"""Session state: the file that was read last, with what it would do at a state of the ledger."""

TURN = "org.directory-upload"
"""Session state: a number that gives the upload box a new identity once its file is dealt with."""


@dataclass(frozen=True, slots=True)
class DirectoryFile:
    """An uploaded directory file: what it would do, unless it has rows that cannot be used."""

    file_id: str
    version: int
    parsed: Parsed
    preview: DirectoryPreview | None


def import_panel(service: BillingService) -> None:
    """Draw the section for importing a file; choosing one reruns nothing else of the page."""
    st.fragment(_panel)(service)


def _panel(service: BillingService) -> None:
    principal = sign_in.guard(Role.ADMIN)
    with quiet():
        st.markdown("**Upload the map**")
        st.caption(plain(texts.UPLOAD_NOTE))
        turn = st.session_state.setdefault(TURN, 0)
        file = st.file_uploader(
            "CSV file",
            type="csv",
            key=f"org-directory-file-{turn}",
            max_upload_size=LARGEST_MB,
            label_visibility="collapsed",
        )
        if file is None:
            return
        reading = _read(service, principal, file.file_id, file.getvalue())
        if reading.preview is None:
            _rejected(reading.parsed)
        else:
            _dry_run(service, principal, reading.preview)


def _read(service: BillingService, principal: Principal, file_id: str, data: bytes) -> DirectoryFile:
    """Read and compared once per file and state of the ledger, not with every click."""
    version = service.version()
    kept: DirectoryFile | None = st.session_state.get(READ)
    if kept is not None and (kept.file_id, kept.version) == (file_id, version):
        return kept
    directory = service.organizations.directory
    parsed = directory.parse_import(data)
    preview = None if parsed.rejected else directory.preview(principal, parsed)
    reading = st.session_state[READ] = DirectoryFile(file_id, version, parsed, preview)
    return reading


def _rejected(parsed: Parsed) -> None:
    count = count_of(len(parsed.rejected), "fault")
    st.error(plain(f"{count} in this file. Nothing is imported until all are corrected."), icon=":material/error:")
    table(rejected_rows(parsed.rejected[:SHOWN_ROWS]), alt="Rows that cannot be used", key="org-directory-rejected")
    _more(len(parsed.rejected))


def _dry_run(service: BillingService, principal: Principal, preview: DirectoryPreview) -> None:
    st.markdown(plain(import_text(preview)))
    for note in preview.notes:
        st.caption(plain(note))
    if preview.steps:
        table(
            step_rows(preview.steps[:SHOWN_ROWS]),
            alt="What this file would change",
            key="org-directory-steps",
            right=("Events", "Credits", "Amount"),
        )
        _more(len(preview.steps))
    with st.container(horizontal=True):
        st.button(
            f"Apply {count_of(len(preview.steps), 'change')}",
            type="primary",
            icon=":material/publish:",
            key="org-directory-apply",
            disabled=not preview.steps,
            on_click=_apply,
            args=(service, principal, preview),
        )
        st.button("Discard", key="org-directory-discard", on_click=_discard)


def _more(total: int) -> None:
    if total > SHOWN_ROWS:
        st.caption(f"and {total - SHOWN_ROWS:,} more")


def _apply(service: BillingService, principal: Principal, preview: DirectoryPreview) -> None:
    """Write what was shown, then draw the whole page as it is."""
    try:
        applied = service.organizations.directory.apply(principal, preview)
    except BillingError as error:
        notice_of_error(error)
        st.session_state.pop(READ, None)
        return
    remember_outcome(SAID, applied_text(applied), is_done=True)
    _discard()
    st.rerun()


def _discard() -> None:
    st.session_state.pop(READ, None)
    st.session_state[TURN] = st.session_state.get(TURN, 0) + 1
