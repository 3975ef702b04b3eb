"""Sign-in to the dashboard: the form, who is signed in, and which roles a page needs.

`main.py` calls `enter` on every run; each page calls `guard` first, and first in each of its fragments as well (a
fragment runs without `main.py`). Who somebody is and may see is asked of `billing_core` each time and kept nowhere.
"""

from __future__ import annotations

import secrets

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from billing_core.access import Principal, Role
from billing_core.auth.throttle import SHARED_ADDRESS
from billing_core.errors import AccessDenied, BillingError
from billing_core.web import wiring
from billing_core.web.cookies import COOKIE_NAME, COOKIE_PATH
from billing_core.web.sockets import SOCKET_HEADER
from components.shared.notice import notice_of_error, plain

SESSION = "sign_in.session"
"""Session state: the id of this tab's session. Never sent to the browser."""

AWAITS_COOKIE = "sign_in.awaits_cookie"
"""Session state: the browser has not fetched this session's cookie yet."""

CLEARS_COOKIE = "sign_in.clears_cookie"
"""Session state: somebody just signed out here, the cookie is to be removed."""

MESSAGE = "sign_in.message"
"""Session state: the sentence above the form."""

USERNAME, PASSWORD = "sign_in.username", "sign_in.password"

ENDED = "Your session has ended. Sign in again to continue."


def signed_in() -> Principal | None:
    """The signed-in person, for whom this run shows the navigation; `None` also if they cannot be found out."""
    try:
        return _principal()
    except BillingError:
        return None


def enter() -> Principal:
    """The signed-in person; anyone else sees the form, or what keeps the dashboard from working, and nothing more."""
    try:
        principal = _principal()
        if principal is None:
            _sign_in_page()
            st.stop()
    except BillingError as error:
        notice_of_error(error)
        st.stop()
    return principal


def guard(*roles: Role) -> Principal:
    """The signed-in person if they have one of `roles` (none named: any); stops the page otherwise."""
    try:
        principal = _principal()
        if principal is None:
            if _is_fragment_run():
                st.rerun()  # of the whole script, which shows the form
            st.info(ENDED + " Reload the page to see the sign-in form.", icon=":material/lock:")
            st.stop()
        if roles and principal.role not in roles:
            raise AccessDenied(f"You need the {' or '.join(roles)} role to view this page.")
    except BillingError as error:
        notice_of_error(error)
        st.stop()
    return principal


def _principal() -> Principal | None:
    """Who this tab belongs to; the door hears of it, because it lets people send more than strangers."""
    principal = _found_principal()
    socket_id = st.context.headers.get(SOCKET_HEADER)
    if isinstance(socket_id, str):
        wiring.sockets.mark(socket_id, is_signed_in=principal is not None)
    return principal


def _found_principal() -> Principal | None:
    """By the tab's own session, else by the browser's cookie."""
    gatekeeper = wiring.gatekeeper()
    session_id = st.session_state.get(SESSION)
    if session_id is not None:
        principal = gatekeeper.principal(session_id)
        if principal is not None:
            return principal
        st.session_state.clear()  # nothing of this session may show up in the next one
        st.session_state[MESSAGE] = ENDED
    session_id = _session_of_cookie()
    principal = None if session_id is None else gatekeeper.principal(session_id)
    if principal is not None:
        st.session_state[SESSION] = session_id
        st.session_state.pop(MESSAGE, None)
    return principal


def _session_of_cookie() -> str | None:
    cookie = st.context.cookies.get(COOKIE_NAME)
    return wiring.gatekeeper().session_in(cookie) if isinstance(cookie, str) else None  # AppTest hands out a stand-in


def _is_fragment_run() -> bool:
    context = get_script_run_ctx()
    return context is not None and bool(context.fragment_ids_this_run)


def _sign_in_page() -> None:
    with st.container(horizontal_alignment="center"), st.container(width=420):
        st.title("Billing", anchor=False)
        message = st.session_state.pop(MESSAGE, None)
        if message:
            st.warning(plain(message), icon=":material/lock:")
        with st.form("sign-in"):
            st.text_input("Username", key=USERNAME, autocomplete="username")
            st.text_input("Password", key=PASSWORD, type="password", autocomplete="current-password")
            # A callback runs before the script: the run that signs in already shows page and navigation.
            st.form_submit_button("Sign in", type="primary", width="stretch", on_click=_sign_in)
        _list_demo_accounts()
        if st.session_state.pop(CLEARS_COOKIE, False):
            _invisible_image(f"{COOKIE_PATH}/clear?{secrets.token_hex(4)}")  # another address each time: no cache


def _list_demo_accounts() -> None:
    accounts = wiring.gatekeeper().demo_accounts()
    if not accounts:
        return
    st.caption("Demo mode: made-up data. Anyone may use these accounts.")
    rows = [
        f"| {account.name} | {account.password} | {', '.join(sorted(account.organizations or ['everything']))} |"
        for account in accounts
    ]
    st.markdown("\n".join(["| Username | Password | Access |", "| --- | --- | --- |", *rows]))


def _sign_in() -> None:
    name, password = st.session_state.get(USERNAME, ""), st.session_state.get(PASSWORD, "")
    st.session_state[PASSWORD] = ""
    address = st.context.ip_address
    try:
        session_id = wiring.gatekeeper().sign_in(
            name, password, address if isinstance(address, str) else SHARED_ADDRESS, _library_check
        )
    except AccessDenied as refusal:
        st.session_state[MESSAGE] = str(refusal)
    except BillingError:
        return  # the page itself says what is wrong with the settings
    else:
        st.session_state[SESSION] = session_id
        st.session_state[AWAITS_COOKIE] = True


def _library_check(name: str, password: str, password_hash: str) -> bool:
    """streamlit-authenticator's own check of one account, without its cookie, its counters and its session keys."""
    from streamlit_authenticator.controllers import AuthenticationController  # here: 0.15 s the form need not wait for

    controller = AuthenticationController(
        {"usernames": {name: {"name": name, "password": password_hash}}}, auto_hash=False
    )
    try:
        return controller.login(name, password) is True
    finally:
        for key in ("name", "authentication_status", "username", "email", "roles", "logout"):
            st.session_state.pop(key, None)


def sign_out() -> None:
    """End this tab's session and the browser's; the next run shows the form."""
    for session_id in (st.session_state.get(SESSION), _session_of_cookie()):
        if session_id is not None:  # the cookie's session too, or it would sign this tab in again
            wiring.gatekeeper().sign_out(session_id)
    st.session_state.clear()  # filters and frames of one person are not the next one's
    st.session_state[MESSAGE] = "You are signed out."
    st.session_state[CLEARS_COOKIE] = True


def deliver_cookie() -> None:
    """Let the browser fetch the cookie, with a fresh ticket on every run until it did."""
    if not st.session_state.get(AWAITS_COOKIE):
        return
    gatekeeper = wiring.gatekeeper()
    session_id = st.session_state[SESSION]
    if gatekeeper.has_fetched_cookie(session_id):
        del st.session_state[AWAITS_COOKIE]
    else:
        _invisible_image(f"{COOKIE_PATH}/{gatekeeper.ticket(session_id)}")


def _invisible_image(address: str) -> None:
    base = st.get_option("server.baseUrlPath").strip("/")
    st.html(f'<img src="{f"/{base}" if base else ""}{address}" alt="" width="1" height="1" style="opacity:0">')
