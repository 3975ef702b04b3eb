"""A closed month: its manifest, whether the ledger still agrees with it, and the form to reopen it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from billing_core.access import Principal, Role
from billing_core.month_close.model import Month, Verification
from billing_core.service import BillingService
from billing_core.values.counts import count_of
from billing_core.web import wiring
from billing_core.web.jobs import MonthTask
from components.months import texts
from components.months.rows import (
    BOOKS,
    card_rows,
    customer_rows,
    difference_rows,
    exception_rows,
    export_rows,
    facts_rows,
    read_manifest,
    set_rows,
    status_rows,
    stripe_rows,
    total_rows,
)
from components.months.state import AWAITED, ask_to_reopen, close_dialogs, reopen, wants_to_reopen
from components.months.texts import closed_line, days_line, late_text, month_name, verified_text
from components.shared import sign_in
from components.shared.links import file_link
from components.shared.notice import plain
from components.shared.widgets import table

MANIFEST_PATH = "/download/manifest"

SHOWN_CUSTOMERS = 200
SHOWN_DIFFERENCES = 200

LONGEST_REASON = 500

FIGURES = ("Figure", "Events", "Credits", "Amount (USD)", "Number", "Rows", "Bytes", *BOOKS.values())
"""Columns that hold figures."""


def closed_month(service: BillingService, principal: Principal, month: Month, *, is_busy: bool) -> None:
    """Draw the section of a closed month, and the dialog of a reopening."""
    zone = service.settings.zone
    st.caption(plain(days_line(month, zone)))
    st.markdown(plain(closed_line(month, zone)))
    if (text := late_text(month)) is not None:
        st.caption(plain(text))
    with st.container(horizontal=True, vertical_alignment="center", key="months-closed-actions"):
        file_link(
            "Manifest (JSON)",
            f"{MANIFEST_PATH}/{month.period}.json",
            key="months-manifest-file",
            note=texts.MANIFEST_NOTE,
        )
        st.button(
            "Verify",
            icon=":material/verified:",
            key="months-verify",
            disabled=is_busy,
            on_click=_verify,
            args=(service, principal, month.period),
            help=texts.VERIFY_NOTE,
        )
        st.button(
            "Reopen…",
            icon=":material/lock_open:",
            key="months-reopen",
            disabled=is_busy,
            on_click=ask_to_reopen,
            args=(month.period,),
        )
    _verdict(month)
    manifest = read_manifest(service.months.manifest(month.period, principal), month.sha256)
    if manifest is None:
        st.error(plain(texts.EDITED), icon=":material/error:")
    else:
        _manifest(service, month, manifest)
    if wants_to_reopen(month):
        title = f"Reopen {month_name(month.period)}?"
        st.dialog(title, icon=":material/lock_open:", on_dismiss=close_dialogs)(_confirm)(service, month)


def _verify(service: BillingService, principal: Principal, period: str) -> None:
    AWAITED.begin(wiring.close_job().verify(service, principal, period))


def _verdict(month: Month) -> None:
    """What the last verification found, if it was one of this close."""
    state = wiring.close_job().last(MonthTask.VERIFY, month.period)
    if state is None or month.closed_at is None or state.started_at < month.closed_at:
        return
    if state.error is not None:
        st.error(plain(f"The last verification stopped: {state.error}"), icon=":material/error:")
        return
    found = state.result
    if not isinstance(found, Verification):
        return
    text = plain(verified_text(month.period, found.differences, found.checked))
    if found.ok:
        st.success(text, icon=":material/verified:")
        return
    st.error(text, icon=":material/gpp_bad:")
    table(
        difference_rows(found.differences[:SHOWN_DIFFERENCES]),
        alt="What differs from the manifest",
        key=f"months-differences-{state.number}",
    )
    if (rest := len(found.differences) - SHOWN_DIFFERENCES) > 0:
        st.caption(f"and {rest:,} more; the command verify lists them all")


# ── the manifest ─────────────────────────────────────────────────────────────────────────────────


def _manifest(service: BillingService, month: Month, manifest: Mapping[str, Any]) -> None:
    if manifest["exceptions"]:
        _table("Accepted exceptions", exception_rows(manifest), "exceptions")
    grid = st.grid("auto", min_column_width=330, key="months-manifest")
    with grid.cell():
        _table("Totals", total_rows(manifest), "totals")
    with grid.cell():
        _table("By status", status_rows(manifest), "statuses")
        _table("Langfuse, ledger and Stripe", stripe_rows(manifest), "stripe")
    with st.expander("Per customer", icon=":material/group:", key="months-customers"):
        customers = manifest["stripe"]["customers"]
        _table("Langfuse, ledger and Stripe per customer", customer_rows(manifest, SHOWN_CUSTOMERS), "customers")
        if (rest := len(customers) - SHOWN_CUSTOMERS) > 0:
            st.caption(f"and {count_of(rest, 'more customer')}; the manifest names them all")
    _notes(manifest["notes"])
    with st.expander(texts.TECHNICAL, icon=":material/fingerprint:", key="months-facts"):
        st.caption("SHA-256 of the manifest")
        st.code(month.sha256 or "", language=None, wrap_lines=True)
        _table("Exports that stay the same", export_rows(manifest), "exports")
        _table("Underlying entries", set_rows(manifest), "sets")
        _table("Rate cards", card_rows(manifest), "cards")
        _table("References", facts_rows(manifest, service.settings.zone), "places")


def _notes(notes: Sequence[str]) -> None:
    if notes:
        st.markdown("**Notes of the close**")
    for note in notes:
        st.markdown(f"- {plain(note)}")


def _table(title: str, rows: dict[str, list[str]], name: str) -> None:
    st.markdown(f"**{title}**")
    right = [column for column in rows if column in FIGURES]
    table(rows, alt=title, key=f"months-manifest-{name}", right=right)


# ── reopening ────────────────────────────────────────────────────────────────────────────────────


def _confirm(service: BillingService, month: Month) -> None:
    """What reopening means, why it is done, and the button."""
    principal = sign_in.guard(Role.FINANCE, Role.ADMIN)
    if not wants_to_reopen(month):
        st.rerun()
    for sentence in texts.REOPENING:
        st.markdown(plain(sentence.format(month=month_name(month.period))))
    reason = st.text_input(
        "Reason",
        key=f"months-reopen-reason-{month.period}",
        max_chars=LONGEST_REASON,
        placeholder="Why the month is reopened",
        help=texts.REOPEN_NOTE,
    )
    done = f"{month_name(month.period)} is reopened. Close it again once everything is resolved."
    with st.container(horizontal=True):
        st.button(
            f"Reopen {month_name(month.period)}",
            type="primary",
            icon=":material/lock_open:",
            key="months-reopen-confirm",
            disabled=not reason.strip(),
            on_click=reopen,
            args=(service, principal, month.period, reason, done),
        )
        st.button("Cancel", key="months-reopen-cancel", on_click=close_dialogs)
    if not reason.strip():
        st.caption(texts.REOPEN_REASON_NEEDED)
