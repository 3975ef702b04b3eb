"""The directory view: names and customers of organizations, who is not billed, one organization's line, the whole map
as a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from billing_core.access import Principal, Role
from billing_core.errors import BillingError
from billing_core.organizations.directory import DirectoryEntry, DirectoryPreview
from billing_core.organizations.directory_file import Change
from billing_core.organizations.table import label_with_id
from billing_core.service import BillingService
from components.organizations import texts
from components.organizations.directory_import import import_panel
from components.organizations.directory_rows import entry_rows, fits, history_rows
from components.organizations.directory_state import EDITING, SAID, close
from components.organizations.state import URL
from components.organizations.texts import applied_text, moved_text, save_label, unbilled_text
from components.shared import sign_in
from components.shared import texts as shared_texts
from components.shared.data_grid import RowButton, data_grid, page_of, paging
from components.shared.links import file_link
from components.shared.notice import notice_of_error, plain
from components.shared.outcome import remember_outcome, show_outcome
from components.shared.widgets import quiet, table

MAP_PATH = "/download/organization-map.csv"


NOBODY = "No customer assigned"

SHOWN_CHANGES = 200
PAGE_ROWS = 25
FIGURES = ("Unbilled events", "Unbilled credits", "Unbilled amount")


def directory_view(service: BillingService, principal: Principal) -> None:
    """Draw the directory view. An admin limited to organizations reads theirs; changing needs one who may see all."""
    may_change = principal.organizations is None
    st.header("Names and customers", anchor=False, help=texts.DIRECTORY_NOTE)
    with st.container(key="org-directory-said"):  # always there, so that what stands below keeps its place
        show_outcome(SAID)
    with quiet():
        entries = service.organizations.directory.entries(principal)
        _at_stake(entries)
        if not may_change:
            st.caption(texts.DIRECTORY_READ_ONLY)
        _lines(entries, may_change=may_change)
    if may_change:
        with quiet():
            import_panel(service)
    with quiet():
        _history(service, principal)
    if may_change and EDITING.get():
        dialog = st.dialog("Name and customer", width="medium", icon=":material/edit:", on_dismiss=close)
        dialog(_editor)(service)


def _at_stake(entries: Sequence[DirectoryEntry]) -> None:
    text = plain(unbilled_text(entries))
    if any(entry.at_stake.events for entry in entries):
        st.warning(f"{text} They are listed first.", icon=":material/money_off:")
    else:
        st.success(text, icon=":material/check_circle:")


# ── the lines ────────────────────────────────────────────────────────────────────────────────────


def _lines(entries: Sequence[DirectoryEntry], *, may_change: bool) -> None:
    address = URL.current()
    found = [entry for entry in entries if fits(entry, address.search)]
    names = {entry.organization_id: entry.name for entry in entries if entry.name}
    with st.container(horizontal=True, vertical_alignment="bottom", key="org-directory-controls"):
        URL.search_box("Organization, name or customer")
        if may_change:
            _chooser([entry.organization_id for entry in found], names)
        file_link("CSV", MAP_PATH, note=texts.DIRECTORY_CSV_NOTE, key="org-map-csv")
    if not found:
        st.info(texts.NOT_FOUND, icon=":material/search_off:")
        return
    _, shown = page_of(found, address.page, PAGE_ROWS)
    _grid(shown, may_change=may_change)
    paging(URL, len(found), PAGE_ROWS, "organization", key="org-directory-paging")


def _chooser(organizations: Sequence[str], names: Mapping[str, str]) -> None:
    """The way to a line for keyboards and phones, and to an organization that has no events yet."""
    chosen = st.selectbox(
        "Organization",
        organizations,
        index=None,
        key="org-directory-choice",
        accept_new_options=True,
        format_func=lambda one: label_with_id(one, names),
        placeholder="Choose or type an id",
        width=260,
    )
    st.button(
        "Edit…",
        icon=":material/edit:",
        key="org-directory-edit",
        disabled=not chosen,
        on_click=EDITING.put,
        args=(chosen if chosen in organizations else (chosen or "").strip(),),
    )


def _grid(shown: Sequence[DirectoryEntry], *, may_change: bool) -> None:
    cells, text = entry_rows(shown), st.column_config.TextColumn
    data_grid(
        cells,
        {n: text(n, alignment="right" if n in FIGURES else "left", pinned=n == "Organization") for n in cells},
        key=f"org-directory-grid-{URL.generation()}-{URL.current().page}",
        alt="Organizations with their names and the customers billed for events that name none",
        rows=len(shown),
        buttons=[RowButton("edit", "Edit", "Edit", lambda row: EDITING.put(shown[row].organization_id))]
        if may_change
        else [],
    )


# ── one line ─────────────────────────────────────────────────────────────────────────────────────


def _editor(service: BillingService) -> None:
    """What it is and shall be, what that moves, and the button that says so."""
    principal = sign_in.guard(Role.ADMIN)
    if not (organization_id := EDITING.get()):  # saved a moment ago: close, and draw the page as it is now
        st.rerun()
    try:
        directory = service.organizations.directory
        entries = {entry.organization_id: entry for entry in directory.entries(principal)}
        entry = entries.get(organization_id)
        st.markdown(f"Organization **{plain(organization_id)}**")
        name = st.text_input(
            "Name",
            (entry and entry.name) or "",
            key=f"org-directory-name-{organization_id}",
            max_chars=200,
            placeholder="None",
        )
        customer = _customer_box(service, principal, organization_id, entry)
        change = Change(organization_id, " ".join(name.split()), customer.strip())
        preview = directory.preview(principal, [change])
    except BillingError as error:
        notice_of_error(error)
        return
    _preview(preview)
    with st.container(horizontal=True):
        st.button(
            plain(save_label(preview.steps[0]) if preview.steps else "Save"),
            type="primary",
            icon=":material/save:",
            key="org-directory-save",
            disabled=not preview.steps,
            on_click=_apply,
            args=(service, principal, preview),
        )
        st.button("Cancel", key="org-directory-cancel", on_click=close)


def _customer_box(
    service: BillingService, principal: Principal, organization_id: str, entry: DirectoryEntry | None
) -> str:
    """The customer to map to, empty for none: that is a choice, for a box that shows something cannot be emptied."""
    known = service.organizations.directory.stripe_customers(principal)
    called = {one.id: one.name for one in known or () if one.name}
    present = entry.customer_id if entry else None
    options = ["", *sorted({*(one.id for one in known or ()), *([present] if present else ())})]
    return st.selectbox(
        "Stripe customer",
        options,
        index=options.index(present or ""),
        accept_new_options=True,
        key=f"org-directory-customer-{organization_id}",
        placeholder=shared_texts.CHOOSE_CUSTOMER,
        format_func=lambda one: label_with_id(one, called) if one else NOBODY,
        help=(texts.BILLED_FOR + ("" if known else texts.CUSTOMERS_NEVER_READ)),
    )


def _preview(preview: DirectoryPreview) -> None:
    if not preview.steps:
        st.caption(texts.NOTHING_CHANGED)
        return
    step = preview.steps[0]
    st.markdown(plain(moved_text(step)))
    for warning in step.warnings:
        st.warning(plain(warning), icon=":material/warning:")
    for note in preview.notes:
        st.caption(plain(note))


def _apply(service: BillingService, principal: Principal, preview: DirectoryPreview) -> None:
    """Write what was shown. A callback runs before the dialog, which then finds that it is over."""
    try:
        applied = service.organizations.directory.apply(principal, preview)
    except BillingError as error:
        remember_outcome(SAID, f"Not saved: {error}", is_done=False)
    else:
        remember_outcome(SAID, applied_text(applied), is_done=True)
    close()


# ── what happened ────────────────────────────────────────────────────────────────────────────────


def _history(service: BillingService, principal: Principal) -> None:
    rows = service.organizations.directory.history(principal, SHOWN_CHANGES)
    with st.expander("History of changes", icon=":material/history:"):
        if not rows:
            st.caption(texts.NO_HISTORY)
            return
        table(
            history_rows(rows, service.settings.zone),
            alt="Changes of names and customers, newest first",
            key="org-directory-history",
        )
        if len(rows) == SHOWN_CHANGES:
            st.caption(f"The newest {SHOWN_CHANGES}. The audit log has every change.")
