"""The audit log as a view: who did what and when, how many, with which hash. Read by admins, changed by nobody."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import streamlit as st

from billing_core.access import Principal, Role
from billing_core.audit.service import AuditPage, AuditQuery
from billing_core.ledger.audit_chain import ChainReport
from billing_core.ledger.audit_log import AuditEntry
from billing_core.service import BillingService
from components.audit import texts
from components.audit.texts import (
    action_label,
    chain_text,
    csv_address,
    detail_facts,
    entry_rows,
    entry_title,
    found_text,
    hashes_of,
)
from components.shared import sign_in
from components.shared.data_grid import page_count, pages, picked_rows
from components.shared.links import file_link
from components.shared.notice import plain
from components.shared.periods import Period, PeriodChoice
from components.shared.url_codec import PERIOD_VALUES, SPAN_NAMES, Codec, number, several, text
from components.shared.url_state import UrlState, period_boxes
from components.shared.widgets import quiet, table

PAGE_ROWS = 25
LONGEST_SEARCH = 200


@dataclass(frozen=True)
class AuditView(PeriodChoice):
    """What the URL asks of the log."""

    period: Period = Period.ALL_TIME
    who: tuple[str, ...] = ()
    what: tuple[str, ...] = ()
    search: str = ""
    page: int = 1


URL = UrlState(
    "audit",
    Codec(
        AuditView(),
        {**PERIOD_VALUES, "who": several(), "what": several(), "search": text(), "page": number(1, 10**8)},
        {**SPAN_NAMES, "search": "find", "page": "part"},
    ),
)

REPORT = "audit.report"
"""Session state: what following the chain found last."""


@dataclass(frozen=True, slots=True)
class _Proof:
    reader: Principal
    report: ChainReport
    at: datetime


def audit_view(service: BillingService, principal: Principal) -> None:
    """Draw the audit log with its filters."""
    st.caption(plain(texts.FORM))
    if principal.organizations is not None:
        st.info(texts.LIMITED, icon=":material/lock:")
        return
    with quiet():
        st.fragment(_chain)(service)
    with quiet():
        _log(service, principal)


# ── the chain ────────────────────────────────────────────────────────────────────────────────────


def _chain(service: BillingService) -> None:
    """The button, and what it found last."""
    principal = sign_in.guard(Role.ADMIN)
    with quiet():
        if st.button("Verify the chain", icon=":material/link:", key="audit-verify"):
            with st.spinner("Verifying the chain…"):
                report = service.trail.verify(principal)
            st.session_state[REPORT] = _Proof(principal, report, service.now())
        proof: _Proof | None = st.session_state.get(REPORT)
        if proof is None or proof.reader != principal:
            st.caption(texts.NOT_VERIFIED)
            return
        text = plain(chain_text(proof.report, proof.at, service.settings.zone))
        if proof.report.ok:
            st.success(text, icon=":material/verified:")
        else:
            st.error(text, icon=":material/gpp_bad:")


# ── the entries ──────────────────────────────────────────────────────────────────────────────────


def _query(service: BillingService) -> AuditQuery:
    view = URL.current()
    start, end = view.window(service.now(), service.settings.zone)
    return AuditQuery(view.who, view.what, start, end, view.search or None, view.page, PAGE_ROWS)


def _found(service: BillingService, principal: Principal) -> tuple[AuditQuery, AuditPage]:
    """The page the URL asks for, or the last one if it asks for one behind that."""
    query = _query(service)
    page = service.trail.page(principal, query)
    if page.total_items and not page.entries:
        query = replace(query, page=-(-page.total_items // query.limit))
        page = service.trail.page(principal, query)
    return query, page


def _log(service: BillingService, principal: Principal) -> None:
    place = st.container(key="audit-filters")
    found = None
    with quiet():
        found = _found(service, principal)
    with place:  # also if what they say was refused: here it is corrected
        _filters(service, None if found is None else found[1])
    if found is None:
        return
    query, page = found
    zone = service.settings.zone
    with st.container(horizontal=True, vertical_alignment="center", key="audit-found"):
        st.caption(plain(found_text(len(page.entries), query.page, query.limit, page.total_items)), width="stretch")
        file_link("CSV", csv_address(query), key="audit-csv", note=texts.CSV_NOTE)
    if not page.entries:
        st.info(texts.NO_ENTRIES, icon=":material/search_off:")
        return
    _entries(service, page, query)
    if page.total_items > query.limit:
        pages(URL, page_count(page.total_items, query.limit))
    st.caption(plain(f"Newest first. Times in {zone.key}."))


def _filters(service: BillingService, page: AuditPage | None) -> None:
    choices = (
        ("who", "Who", () if page is None else page.actors, str),
        ("what", "What", () if page is None else page.actions, action_label),
    )
    URL.told()
    with st.container(horizontal=True, vertical_alignment="bottom", key="audit-bar"):
        URL.search_box("Who, what or details", width=240, max_chars=LONGEST_SEARCH)
        for field, label, offered, worded in choices:
            URL.multiselect(field, label, offered, width=220, format_func=worded, wrap=None)
        period_boxes(URL, service.settings.zone)


def _entries(service: BillingService, page: AuditPage, query: AuditQuery) -> None:
    zone = service.settings.zone
    chosen = picked_rows(
        page.entries,
        entry_rows(page.entries, zone),
        name="audit-table",
        identity=(page.entries[0].seq, page.entries[-1].seq, query.page),
        alt="Audit log, newest first",
        right=["Entry"],
        mode="single-row",
    )
    if not chosen:
        st.caption(texts.SELECT_A_ROW)
    for entry in chosen:
        _entry(service, entry)


def _entry(service: BillingService, entry: AuditEntry) -> None:
    with st.container(border=True, key="audit-entry"):
        st.markdown(f"**{plain(entry_title(entry, service.settings.zone))}**")
        facts = detail_facts(entry)
        table(
            {"Fact": [name for name, _ in facts], "Value": [value for _, value in facts]},
            alt="Details of the entry",
            key=f"audit-facts-{entry.seq}",
        )
        for name, value in hashes_of(entry):
            st.caption(plain("SHA-256" if name == "sha256" else name[:1].upper() + name[1:]))
            st.code(value, language=None, wrap_lines=True)
