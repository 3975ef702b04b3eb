"""The menu of saved views of a page: open one, save what is shown, share it, start with it, copy its link."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import streamlit as st

from billing_core.access import Principal, Role
from billing_core.errors import BillingError
from billing_core.ledger.saved_views import SavedView
from billing_core.service import BillingService
from components.shared import texts
from components.shared.notice import plain
from components.shared.url_state import UrlState

NAME, ROLE, REFUSED = "saved-views.name", "saved-views.role", "saved-views.refused"
STARTED = "saved-views.started"
"""Session state: this visit has been taken to the view its person starts with, or asked for another."""


def saved_views(service: BillingService, principal: Principal, page: str, *states: UrlState[Any]) -> None:
    """Draw the button “Views” of a page, whose URL holds `states`; `page` is its file's name without `.py`."""
    query = "&".join(text for url in states if (text := url.codec.to_text(url.current())))
    with st.popover("Views", icon=":material/bookmark:", key="saved-views"):
        found = service.views.views(principal, page)
        if found:
            start = service.views.start(principal)
            for view in found:
                _row(service, principal, view, is_start=start is not None and view.id == start.id)
        else:
            st.caption(texts.NO_SAVED_VIEWS)
        st.space("small")
        st.markdown(f"**{texts.SAVE_VIEW}**")
        st.text_input("Name", key=NAME, max_chars=60, placeholder=texts.VIEW_NAME_EXAMPLE)
        st.selectbox("Who may open it", ["", *Role], key=ROLE, format_func=_shared_text, filter_mode=None)
        if (refused := st.session_state.pop(REFUSED, None)) is not None:
            st.error(plain(refused), icon=":material/error:")
        st.button(
            "Save",
            key="saved-views-save",
            icon=":material/bookmark_add:",
            on_click=_save,
            args=(service, principal, page, query),
        )
        st.space("small")
        st.markdown(f"**{texts.LINK_TO_VIEW}**", help=texts.LINK_HELP)
        st.code(_link(query), language=None, wrap_lines=True)


def open_start_view(service: BillingService, principal: Principal, page: str) -> None:
    """Go from the page on which the dashboard opens to the view a person chose: once per visit, unless the address
    asks for something.
    """
    is_asked, st.session_state[STARTED] = bool(st.query_params) or STARTED in st.session_state, True
    if is_asked or (start := service.views.start(principal)) is None:
        return
    query = parse_qs(start.query, keep_blank_values=True)
    if start.page == page:
        st.query_params.from_dict(query)
    else:
        st.switch_page(f"{start.page}.py", query_params=query)


def _row(service: BillingService, principal: Principal, view: SavedView, *, is_start: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        is_own = view.owner == principal.name
        st.button(
            plain(view.name),
            key=f"open-view-{view.id}",
            type="tertiary",
            help=None if is_own and view.shared_with is None else _whose(view, is_own=is_own),
            on_click=_open,
            args=(view,),
        )
        st.space("stretch")
        st.button(
            "Start page",
            key=f"start-view-{view.id}",
            icon=":material/home:",
            type="primary" if is_start else "secondary",
            help=texts.IS_START_VIEW if is_start else texts.MAKE_START_VIEW,
            on_click=_act,
            args=(service.views.set_start, principal, None if is_start else view.id),
        )
        if is_own or principal.role is Role.ADMIN:
            st.button(
                "Delete",
                key=f"delete-view-{view.id}",
                icon=":material/delete:",
                on_click=_act,
                args=(service.views.delete, principal, view.id),
            )


def _whose(view: SavedView, *, is_own: bool) -> str:
    shared = "" if view.shared_with is None else f"Shared with the {view.shared_with} role"
    return plain(shared if is_own else f"{shared} by {view.owner}")


def _shared_text(role: str) -> str:
    return f"Everybody with the {role} role" if role else "Only me"


def _link(query: str) -> str:
    here = urlsplit(st.context.url or "")
    return here._replace(path=here.path or "/", query=query, fragment="").geturl()


def _open(view: SavedView) -> None:
    st.query_params.from_dict(parse_qs(view.query, keep_blank_values=True))


def _act(do: Any, principal: Principal, view_id: str | None) -> None:
    try:
        do(principal, view_id)
    except BillingError as error:
        st.session_state[REFUSED] = str(error)


def _save(service: BillingService, principal: Principal, page: str, query: str) -> None:
    name, role = st.session_state[NAME], st.session_state[ROLE]
    try:
        shared_with = Role(role) if role else None
        view = service.views.save(principal, page=page, name=name, query=query, shared_with=shared_with)
    except BillingError as error:
        st.session_state[REFUSED] = str(error)
        return
    st.session_state[NAME] = ""
    st.toast(texts.VIEW_SAVED.format(name=plain(view.name)), icon=":material/bookmark_added:")
