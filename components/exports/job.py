"""A running or finished export on the page: its progress, a button to stop it, and the file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from billing_core.access import Principal
from billing_core.errors import BillingError
from billing_core.exports.model import ExportPreview, ExportRequest, ExportResult, Format
from billing_core.service import BillingService
from billing_core.web import wiring
from components.exports import texts
from components.exports.state import JOB, Place
from components.exports.texts import compared_rows, differing, progress_fraction, progress_text, result_text
from components.shared import sign_in
from components.shared.links import file_link, route_path
from components.shared.notice import notice_of_error, plain
from components.shared.script_frame import draw_frame
from components.shared.widgets import table

if TYPE_CHECKING:
    from billing_core.web.export_jobs import ExportState

FILE_PATH = "/download/exports"

SHOWN = "export.job-preview"
"""Session state: what the preview said when the export was started."""

FAILED = "export.job-refused"
"""Session state: why the last export could not even be started; said once."""

REFRESH_SECONDS = 0.5
"""Between two looks at a running export."""

_START_DOWNLOAD = Path(__file__).parent / "start_download"


@dataclass(frozen=True, slots=True)
class ShownExport:
    """A preview and the export that was started from it."""

    job_id: str
    preview: ExportPreview | None


def start_export(
    service: BillingService, principal: Principal, request: ExportRequest, preview: ExportPreview | None
) -> None:
    """Start an export in the background. For callbacks; a refusal is said where the progress would stand."""
    st.session_state.pop(FAILED, None)
    try:
        job_id = wiring.export_jobs().start(service, principal, request)
    except BillingError as error:
        st.session_state[FAILED] = str(error)
        return
    JOB.put(job_id)
    st.session_state[SHOWN] = ShownExport(job_id, preview)


def is_exporting(principal: Principal) -> bool:
    """Whether the export this session started last still runs."""
    job_id = JOB.get()
    state = None if job_id is None else _state(job_id, principal)
    return state is not None and state.is_running


def job_box(place: Place, principal: Principal, request: ExportRequest) -> None:
    """Draw the progress or the result of the export this session started last; a file of other choices than `request`
    is folded away, so that it is not taken for theirs.
    """
    refused: str | None = st.session_state.pop(FAILED, None)
    if refused is not None:
        st.error(plain(refused), icon=":material/error:")
    job_id = JOB.get()
    state = None if job_id is None else _state(job_id, principal)
    if job_id is None or state is None:
        return
    with st.container(border=True, key=f"export-{place}-job"):
        if state.is_running:
            st.fragment(_watch, run_every=REFRESH_SECONDS)(place, job_id)
        elif state.result is not None and _choices(state.request) != _choices(request):
            with st.expander(texts.EARLIER_FILE.format(name=state.result.name), icon=":material/history:"):
                _outcome(place, job_id, state)
        else:
            _outcome(place, job_id, state)
            if state.result is not None:
                file, key = route_path(f"{FILE_PATH}/{job_id}"), f"export-{place}-download"
                draw_frame(_START_DOWNLOAD, path=file, job=job_id, key=key)


def _choices(request: ExportRequest) -> ExportRequest:
    """A request whatever the state of the ledger is that it was made of."""
    return replace(request, params=request.params.model_copy(update={"as_of": None}))


def _state(job_id: str, principal: Principal) -> ExportState | None:
    try:
        return wiring.export_jobs().state(job_id, principal)
    except BillingError:  # files are kept for an hour
        JOB.drop()
        return None


def _watch(place: Place, job_id: str) -> None:
    """Follow it; when it is over, draw what surrounds this anew."""
    principal = sign_in.guard()
    state = _state(job_id, principal)
    if state is None or not state.is_running:
        st.rerun()
    st.progress(progress_fraction(state.progress), text=plain(progress_text(state.progress)))
    st.button(
        "Cancel", icon=":material/cancel:", key=f"export-{place}-cancel", on_click=_cancel, args=(job_id, principal)
    )


def _cancel(job_id: str, principal: Principal) -> None:
    try:
        wiring.export_jobs().cancel(job_id, principal)
    except BillingError as error:
        notice_of_error(error)


def _outcome(place: Place, job_id: str, state: ExportState) -> None:
    if state.error is not None:
        st.warning(plain(f"No file was written: {state.error}"), icon=":material/info:")
    elif state.result is not None:
        _file(place, job_id, state.result)
    st.button("Dismiss", icon=":material/close:", key=f"export-{place}-put-away", on_click=JOB.drop)


def _file(place: Place, job_id: str, result: ExportResult) -> None:
    st.success(plain(result_text(result)), icon=":material/check_circle:")
    with st.container(horizontal=True, vertical_alignment="center", key=f"export-{place}-links"):
        file_link("Download the file", f"{FILE_PATH}/{job_id}", note=texts.KEPT, key=f"export-{place}-file")
        file_link(
            "Manifest", f"{FILE_PATH}/{job_id}.manifest.json", key=f"export-{place}-manifest", note=texts.MANIFEST_NOTE
        )
        if result.meta.get("format") == Format.FOCUS:
            file_link(
                "FOCUS metadata",
                f"{FILE_PATH}/{job_id}.focus-metadata.json",
                key=f"export-{place}-focus-metadata",
                note=texts.METADATA_NOTE,
            )
    shown: ShownExport | None = st.session_state.get(SHOWN)
    preview = shown.preview if shown is not None and shown.job_id == job_id else None
    if preview is not None:
        wrong = differing(preview, result)
        if wrong:
            says = (
                f"The file differs from its preview in {', '.join(wrong)}. Do not use it; contact your administrator."
            )
            st.error(plain(says), icon=":material/error:")
        else:
            st.caption(texts.TOTALS_EQUAL)
    rows = compared_rows(preview, result)
    table(
        rows,
        alt="Totals of the preview and of the file",
        key=f"export-{place}-totals-{job_id}",
        right=[name for name in rows if name != "Total"],
    )
    st.caption("SHA-256 of the file")
    st.code(result.sha256, language=None, wrap_lines=True)
