"""The import view: a file, what it is and would do, then all of it or nothing. Text from the file is only ever shown as
text.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from billing_core.access import Principal, Role
from billing_core.errors import BillingError
from billing_core.imports.model import ImportPlan, ImportProgress, RejectedLine
from billing_core.service import BillingService
from billing_core.values.counts import count_of
from billing_core.values.csv_cells import csv_line
from components.exports.query import timezones
from components.imports import texts
from components.imports.log import import_log
from components.imports.state import APPLYING, READING, SAID, FilePlan, Spooled, close_dialogs, discard, spool, uploader
from components.imports.texts import (
    applied_text,
    confirm_label,
    counts_text,
    effect_rows,
    effect_text,
    file_text,
    nothing_to_do_text,
    part_rows,
    progress_text,
    real_effects,
    refused_text,
    rejected_rows,
    rejected_text,
    without_offset_text,
)
from components.shared import sign_in
from components.shared.formats import count
from components.shared.metric_tiles import MetricTile, metric_tiles
from components.shared.notice import plain
from components.shared.outcome import remember_outcome, show_outcome
from components.shared.widgets import quiet, table

SHOWN_ROWS = 200

COUNTED = ("Events", "Credits", "Amount (USD)", "New", "Changed", "Unchanged", "Rejected", "Row")
"""Columns that hold figures."""


def import_view(service: BillingService, principal: Principal) -> None:
    """Draw the import view."""
    with st.container(key="import-said"):  # always there, so that what stands below keeps its place
        show_outcome(SAID)
    if principal.organizations is not None:
        st.info(texts.LIMITED, icon=":material/lock:")
        return
    with quiet():
        _take(service, principal)
        read = READING.get()
        if read is not None:
            _show(service, principal, read)
    with quiet():
        import_log(service, principal)
    if APPLYING.get() and READING.get() is not None:
        st.dialog("Import this file?", icon=":material/publish:", on_dismiss=close_dialogs)(_confirm)(service)


# ── the file ─────────────────────────────────────────────────────────────────────────────────────


def _take(service: BillingService, principal: Principal) -> None:
    """The upload box; a file that came with this run is read at once, in place of the one before."""
    st.caption(plain(texts.FORM))
    box = st.empty()
    file = box.file_uploader("File", key=uploader(), label_visibility="collapsed")
    if file is None:
        return
    discard()
    _read(service, principal, spool(file.name, file))
    st.rerun()  # with an empty box: a second upload of the same file is a new one


def _read(
    service: BillingService,
    principal: Principal,
    file: Spooled,
    *,
    skip_bad_rows: bool = False,
    timezone: str | None = None,
) -> None:
    """Dry run of the file. Whoever goes elsewhere meanwhile stops it."""
    version = service.version()
    bar = st.progress(0.0, text="Reading")

    def see(progress: ImportProgress) -> None:
        bar.progress(min(1.0, max(0.0, progress.fraction)), text=plain(progress_text(progress)))

    try:
        plan = service.imports.plan(
            file.path, principal, name=file.name, skip_bad_rows=skip_bad_rows, timezone=timezone, progress=see
        )
    except BillingError as error:
        READING.put(FilePlan(file, version, None, str(error)))
    else:
        READING.put(FilePlan(file, version, plan, timezone=timezone))
    finally:
        bar.empty()


# ── what it would do ─────────────────────────────────────────────────────────────────────────────


def _show(service: BillingService, principal: Principal, read: FilePlan) -> None:
    with st.container(border=True, key="import-plan"):
        plan = read.plan
        if plan is None:
            st.error(plain(f"{read.file.name}: {read.error}"), icon=":material/error:")
            st.button("Dismiss", icon=":material/close:", key="import-discard", on_click=discard)
            return
        st.markdown(f"**{plain(file_text(plan))}**")
        _counts(plan)
        for warning in plan.warnings:
            st.warning(plain(warning), icon=":material/warning:")
        _timezone(service, principal, read, plan)
        _rejected(service, principal, read, plan)
        if plan.parts:
            _table(part_rows(plan.parts), "Files of the bundle", "import-parts")
        if plan.outcome.changes:
            _effect(plan)
        elif plan.can_apply:
            st.info(plain(nothing_to_do_text(plan)), icon=":material/check:")
        _details(plan)
        _decide(service, principal, read, plan)


def _counts(plan: ImportPlan) -> None:
    """Only a file that can be read to its end is compared with the ledger; another one has no other counts."""
    outcome = plan.outcome
    figures: list[tuple[str, int, str]] = [("Rejected", plan.rejected_rows, texts.REJECTED)]
    if plan.is_whole:
        figures = [
            ("New", outcome.new, texts.NEW),
            ("Changed", outcome.changed, texts.CHANGED),
            ("Unchanged", outcome.unchanged, texts.UNCHANGED),
            *figures,
        ]
    metric_tiles(
        [MetricTile(label, count(figure), count_of(figure, "row"), says) for label, figure, says in figures],
        key="import-counts",
    )


def _timezone(service: BillingService, principal: Principal, read: FilePlan, plan: ImportPlan) -> None:
    """Whose clock the times without an offset were read off: never guessed, so nothing is chosen beforehand."""
    if not plan.without_offset:
        return
    zones = timezones()
    chosen = st.selectbox(
        plain(without_offset_text(plan)),
        zones,
        index=zones.index(read.timezone) if read.timezone in zones else None,
        placeholder="Choose the timezone of the file",
        key=f"{uploader()}-timezone",
    )
    if chosen is not None and chosen != read.timezone:
        _read(service, principal, read.file, skip_bad_rows=plan.skip_bad_rows, timezone=chosen)
        st.rerun()


def _rejected(service: BillingService, principal: Principal, read: FilePlan, plan: ImportPlan) -> None:
    if not plan.rejected_rows and plan.is_whole:
        return
    st.error(plain(rejected_text(plan)), icon=":material/error:")
    _table(rejected_rows(plan.rejected[:SHOWN_ROWS]), "Rows that cannot be used", "import-rejected")
    if (rest := plan.rejected_rows - len(plan.rejected[:SHOWN_ROWS])) > 0:
        st.caption(f"and {count_of(rest, 'more row')}; the CSV lists the first {len(plan.rejected):,}")
    with st.container(horizontal=True, vertical_alignment="center", key="import-rejected-actions"):
        st.download_button(
            "Rejected rows (CSV)",
            _rejected_csv(plan.rejected),
            "rejected-rows.csv",
            "text/csv",
            on_click="ignore",
            icon=":material/download:",
            key="import-rejected-csv",
        )
        if plan.is_whole and not plan.skip_bad_rows:
            left_out = st.button("Skip them", icon=":material/filter_list_off:", key="import-skip")
            if left_out:
                _read(service, principal, read.file, skip_bad_rows=True, timezone=read.timezone)
                st.rerun()


def _rejected_csv(rejected: Sequence[RejectedLine]) -> bytes:
    lines = [("row", "field", "reason"), *((one.row, one.field, one.reason) for one in rejected)]
    return "".join(csv_line(line) for line in lines).encode()


def _effect(plan: ImportPlan) -> None:
    st.markdown(plain(effect_text(plan.outcome.organizations)))
    effects = real_effects(plan.outcome.organizations)
    if not effects:
        return
    rows = effect_rows(effects)
    _table(
        {name: cells[:SHOWN_ROWS] for name, cells in rows.items()}, "What it changes per organization", "import-sums"
    )
    if (rest := len(effects) - SHOWN_ROWS) > 0:
        st.caption(f"and {count_of(rest, 'more organization')} with smaller changes")


def _details(plan: ImportPlan) -> None:
    with st.expander("Columns and SHA-256", icon=":material/fingerprint:", key="import-details"):
        if plan.columns:
            st.caption(plain(f"{count_of(len(plan.columns), 'column')}: {', '.join(plan.columns)}"))
        st.caption("SHA-256 of the file")
        st.code(plan.sha256, language=None, wrap_lines=True)


def _decide(service: BillingService, principal: Principal, read: FilePlan, plan: ImportPlan) -> None:
    if service.version() != read.version:
        st.caption(texts.OUTDATED)
    with st.container(horizontal=True, vertical_alignment="center", key="import-decide"):
        if plan.can_apply and plan.outcome.changes:
            st.button(
                "Import…",
                type="primary",
                icon=":material/publish:",
                key="import-apply",
                on_click=APPLYING.put,
                args=(True,),
            )
        again = service.version() != read.version and st.button(
            "Preview again", icon=":material/refresh:", key="import-again"
        )
        st.button("Discard", key="import-discard", on_click=discard)
    if again:
        _read(service, principal, read.file, skip_bad_rows=plan.skip_bad_rows, timezone=read.timezone)
        st.rerun()


def _table(rows: dict[str, list[str]], alt: str, key: str) -> None:
    table(rows, alt=alt, key=key, right=[name for name in rows if name in COUNTED])


# ── the decision ─────────────────────────────────────────────────────────────────────────────────


def _confirm(service: BillingService) -> None:
    """Says once more what would be done, and does it. What is begun is finished even if the reader leaves."""
    principal = sign_in.guard(Role.ADMIN)
    read = READING.get()
    if read is None or read.plan is None or not APPLYING.get():
        st.rerun()
    plan, outcome = read.plan, read.plan.outcome
    st.markdown(f"**{plain(file_text(plan))}**")
    st.markdown(plain(counts_text(outcome.new, outcome.changed, outcome.unchanged, plan.rejected_rows) + "."))
    st.markdown(plain(effect_text(outcome.organizations)))
    for warning in plan.warnings:
        st.warning(plain(warning), icon=":material/warning:")
    with st.container(horizontal=True):
        sure = st.button(plain(confirm_label(plan)), type="primary", icon=":material/publish:", key="import-confirm")
        st.button("Cancel", key="import-cancel", on_click=close_dialogs)
    if sure:
        with st.spinner(texts.IMPORTING):
            _apply(service, principal, plan)
        st.rerun()


def _apply(service: BillingService, principal: Principal, plan: ImportPlan) -> None:
    """Draws nothing, so that no click can stop it halfway."""
    try:
        result = service.imports.apply(plan, principal)
    except BillingError as error:
        remember_outcome(SAID, refused_text(plan, str(error)), is_done=False)
        close_dialogs()
    else:
        remember_outcome(SAID, applied_text(result), is_done=True)
        discard()
