"""The export panel: data set, format, filters, a preview; then the file. On its page and as a dialog."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import streamlit as st

from billing_core.access import Principal
from billing_core.errors import BillingError, NotFound, WarehouseError
from billing_core.exports.model import FORMATS, Dataset, ExportPreview, ExportRequest, Grain, may_export
from billing_core.service import BillingService
from billing_core.values.counts import count_of
from billing_core.web import wiring
from components.exports import texts
from components.exports.filters import export_filters, narrowed_text, period_and_timezone
from components.exports.job import is_exporting, job_box, start_export
from components.exports.query import FOCUS_VERSIONS, Choice, Separator, has, request_of
from components.exports.state import OPEN, STATES, Place
from components.exports.texts import (
    DATASET_WORDS,
    FORMAT_WORDS,
    GRAIN_WORDS,
    column_pixels,
    note,
    nothing_text,
    preview_rows,
    totals_text,
)
from components.shared import sign_in
from components.shared import texts as shared_texts
from components.shared.notice import notice_of_error, plain
from components.shared.periods import Period
from components.usage_events.query import Filters, as_changes

PREVIEW = "export.preview"
"""Session state: the last preview with what it was asked for."""

PREVIEW_ROWS = 10


FIGURES = (
    "tokens_",
    "credits_",
    "cost_",
    "amount_",
    "latency_",
    "storage_gb",
    "debit",
    "credit",
    "events",
    "chats",
    "messages_",
    "users",
    "rows",
)
"""Beginnings of the names of columns that hold figures."""


@dataclass(frozen=True, slots=True)
class PreviewResult:
    """The preview of an export or why there is none, for one reader, question and state of the ledger."""

    reader: Principal
    request: ExportRequest
    preview: ExportPreview | None
    error: BillingError | None = None


def export_view() -> None:
    """Draw the export panel on its page; a click in it reruns nothing else."""
    st.fragment(_panel)(Place.PAGE)


def export_dialog() -> None:
    """Draw the export panel as a dialog over any other page."""
    st.dialog("Export", width="large", icon=":material/download:", on_dismiss=OPEN.drop)(_panel)(Place.DIALOG)


def _panel(place: Place) -> None:
    """Runs on its own: asks again who is reading. Never stops the run, which may have the page still before it."""
    principal = sign_in.guard()
    try:
        service = wiring.service()
        service.check_mode()
        at, as_of = service.now(), service.version()
        STATES[place].told()
        chosen = _offered(place, principal)
        _choices(service, principal, place, chosen, at, as_of)
        zone = service.settings.zone
        request = _columns(service, place, chosen, request_of(chosen, at=at, reporting=zone, as_of=as_of))
        if narrowed := narrowed_text(chosen, at, zone):
            st.caption(plain(narrowed))
    except BillingError as error:
        _show_error(error)
        return
    _preview_and_start(service, principal, place, request)


def _show_error(error: BillingError) -> None:
    notice_of_error(error)
    if isinstance(error, WarehouseError):
        st.caption(shared_texts.TRY_AGAIN)


# ── what ─────────────────────────────────────────────────────────────────────────────────────────


def _offered(place: Place, principal: Principal) -> Choice:
    """What was chosen, as far as this reader may have it."""
    chosen = STATES[place].current()
    if not principal.sees_costs:
        chosen = replace(chosen, internal=False)
    if chosen.dataset in may_export(principal):
        return chosen
    return replace(chosen, dataset=Dataset.USAGE_EVENTS)


def _choices(
    service: BillingService, principal: Principal, place: Place, chosen: Choice, at: datetime, as_of: int
) -> None:
    zone = service.settings.zone
    with st.container(horizontal=True, vertical_alignment="bottom", key=f"export-{place}-what"):
        _dataset_box(place, chosen, principal)
        _format_box(place, chosen)
        if has(chosen, "grain"):
            words = GRAIN_WORDS.__getitem__
            STATES[place].selectbox("grain", "One row per", list(Grain), format_func=words, width=140)
        if has(chosen, "period"):
            period_and_timezone(place, zone)
    st.caption(plain(note(chosen.dataset, chosen.form, chosen.grain)))
    _form_options(place, chosen, principal)
    if has(chosen, "filters"):
        export_filters(service, principal, place, chosen, at, as_of)


def _dataset_box(place: Place, chosen: Choice, principal: Principal) -> None:
    offered, url = may_export(principal), STATES[place]

    def choose(key: str) -> None:
        url.choose("dataset", key, also={"columns": ()})  # another data set has other columns

    key = url.key("dataset")
    st.selectbox(
        "Data set",
        offered,
        index=offered.index(chosen.dataset),
        key=key,
        width=200,
        filter_mode=None,
        format_func=DATASET_WORDS.__getitem__,
        on_change=choose,
        args=(key,),
    )


def _format_box(place: Place, chosen: Choice) -> None:
    if formats := FORMATS[chosen.dataset]:
        words = FORMAT_WORDS.__getitem__
        STATES[place].selectbox("format", "Format", formats, width=160, format_func=words)


def _form_options(place: Place, chosen: Choice, principal: Principal) -> None:
    """What only some formats have."""
    url = STATES[place]
    if has(chosen, "separator"):
        with st.container(horizontal=True, vertical_alignment="bottom", key=f"export-{place}-csv"):
            url.selectbox("separator", "Separator", list(Separator), width=140)
            url.toggle("bom", "Byte order mark", help=texts.BYTE_ORDER_MARK)
    if has(chosen, "focus"):
        with st.container(horizontal=True, vertical_alignment="bottom", key=f"export-{place}-focus"):
            url.selectbox("focus_version", "FOCUS version", FOCUS_VERSIONS, width=140)
            url.toggle("parquet", "As Parquet", help=texts.AS_PARQUET)
            url.toggle("user_ids", "User and session ids", help=texts.PERSONAL_DATA)
            if principal.sees_costs:
                url.toggle("internal", "Our cost and margin", help="Not for customers.")


def _columns(service: BillingService, place: Place, chosen: Choice, request: ExportRequest) -> ExportRequest:
    """The choice of columns; the request with those that the data set has."""
    if not has(chosen, "columns"):
        return request
    names = service.exports.columns(replace(request, columns=()))
    kept = [name for name in request.columns if name in names]
    label = f"Columns ({len(kept)} of {len(names)})" if kept else f"Columns (all {len(names)})"
    with st.expander(label, icon=":material/view_column:", key=f"export-{place}-columns"):
        STATES[place].multiselect(
            "columns",
            "Columns",
            names,
            chosen=kept,
            select_all=1000,
            placeholder="All, in their published order",
            help=texts.COLUMN_ORDER,
            label_visibility="collapsed",
        )
    return replace(request, columns=tuple(kept))


# ── a look, and the file ─────────────────────────────────────────────────────────────────────────


def _preview_and_start(service: BillingService, principal: Principal, place: Place, request: ExportRequest) -> None:
    result = _read_preview(service, principal, request)
    preview = result.preview
    is_compared_first = isinstance(result.error, NotFound) and request.params.from_ is not None
    if preview is not None:
        _preview(place, request, preview)
    elif isinstance(result.error, NotFound):
        _not_compared(place, request, result.error)
    elif result.error is not None:
        _show_error(result.error)
    if preview is not None or is_compared_first:
        _start(service, principal, place, request, preview)
    job_box(place, principal, request)


def _read_preview(service: BillingService, principal: Principal, request: ExportRequest) -> PreviewResult:
    """The preview, made once per question and state of the ledger."""
    kept: PreviewResult | None = st.session_state.get(PREVIEW)
    if kept is not None and (kept.reader, kept.request) == (principal, request):
        return kept
    with st.spinner("Counting…"):
        try:
            result = PreviewResult(principal, request, service.exports.preview(request, principal, PREVIEW_ROWS))
        except BillingError as error:
            return PreviewResult(principal, request, None, error)  # which may be over the next time
    st.session_state[PREVIEW] = result
    return result


def _start(
    service: BillingService, principal: Principal, place: Place, request: ExportRequest, preview: ExportPreview | None
) -> None:
    """The button. The request names a state of the ledger: the file holds what the preview counted."""
    is_busy = is_exporting(principal)
    is_empty = preview is not None and preview.total_rows == 0 and request.dataset is not Dataset.BUNDLE
    st.button(
        "Export" if preview is None else f"Export {count_of(preview.total_rows, 'row')}",
        type="primary",
        icon=":material/download:",
        key=f"export-{place}-start",
        disabled=is_busy or is_empty,
        help=texts.RUNNING if is_busy else None,
        on_click=start_export,
        args=(service, principal, request, preview),
    )


def _not_compared(place: Place, request: ExportRequest, error: BillingError) -> None:
    """Books that were never compared have no rows to preview yet."""
    says = str(error)
    st.info(plain(says[:1].upper() + says[1:]), icon=":material/balance:")
    if request.params.from_ is not None:
        st.button(
            "Use the newest reconciliation",
            icon=":material/history:",
            key=f"export-{place}-newest",
            on_click=STATES[place].change,
            kwargs=as_changes(Filters(period=Period.ALL_TIME)),
        )


def _preview(place: Place, request: ExportRequest, preview: ExportPreview) -> None:
    st.markdown(f"**Preview:** {plain(totals_text(preview.total_rows, preview.totals))}")
    if preview.total_rows:
        _rows(place, request, preview)
        return
    st.info(nothing_text(request.dataset), icon=":material/search_off:")
    if request.params.model_dump(exclude_defaults=True, exclude={"as_of"}):
        st.button(
            "All time, no filter",
            icon=":material/restart_alt:",
            key=f"export-{place}-reset",
            on_click=STATES[place].change,
            kwargs=as_changes(Filters(period=Period.ALL_TIME)),
        )


def _rows(place: Place, request: ExportRequest, preview: ExportPreview) -> None:
    rows = preview_rows(preview)
    config = {
        name: st.column_config.TextColumn(
            name, alignment="right" if name.startswith(FIGURES) else "left", width=column_pixels(name, cells)
        )
        for name, cells in rows.items()
    }
    st.dataframe(
        rows, hide_index=True, key=f"export-{place}-preview-rows", alt="First rows of the file", column_config=config
    )
    if request.dataset is Dataset.BUNDLE:
        st.caption(texts.BUNDLE_NOTE)
    elif (rest := preview.total_rows - len(preview.rows)) > 0:
        st.caption(f"The first {len(preview.rows)}; {count_of(rest, 'more row')} in the file.")
