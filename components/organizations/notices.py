"""Notices of reached limits on the page: open ones first; an admin marks them as seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from zoneinfo import ZoneInfo

import streamlit as st

from billing_core.access import Principal, Role
from billing_core.errors import BillingError
from billing_core.organizations.notices_service import DueNotices, RaisedNotice
from billing_core.service import BillingService
from billing_core.values.counts import count_of
from components.organizations import texts
from components.organizations.limit_rows import notice_rows, reached_rows
from components.organizations.names import names as names_of
from components.shared import sign_in
from components.shared.data_grid import picked_rows
from components.shared.links import file_link
from components.shared.notice import plain
from components.shared.outcome import remember_outcome, show_outcome
from components.shared.widgets import quiet, table

NOTICES_CSV = "/download/notices.csv"

SAID = "org.notices-said"
"""Session state: what the last mark did, to be said once."""

LISTED = 500
"""Customers listed at once; a mark of all notices touches all of them."""


def notices_panel(service: BillingService) -> None:
    """Draw the notices of reached limits; marking one reruns nothing else of the page."""
    st.fragment(_panel)(service)


def _panel(service: BillingService) -> None:
    principal = sign_in.guard(Role.ADMIN)
    with quiet():
        board = service.organizations.limits.notices.due_notices(principal)
        names, zone = names_of(service, principal), service.settings.zone
        with st.container(horizontal=True, vertical_alignment="center"):
            st.header("Notices", anchor=False, width="stretch", help=_note(service))
            file_link("CSV", NOTICES_CSV, note=texts.NOTICES_CSV_NOTE, key="org-notices-csv")
        show_outcome(SAID)
        if board.problem is not None:
            text = f"Notices could not be raised or delivered last time: {board.problem}"
            st.warning(plain(text), icon=":material/warning:")
        if principal.organizations is not None:
            _reached(board, names, zone)
            return
        _open(service, principal, board, names, zone)
        if board.seen:
            with st.expander(f"Seen before ({len(board.seen):,})", icon=":material/done_all:"):
                table(notice_rows(board.seen, names, zone), alt="Notices marked as seen", key="org-notices-seen")


def _note(service: BillingService) -> str:
    levels = ", ".join(f"{threshold:,}" for threshold in service.settings.limit_thresholds)
    return plain(
        f"Raised once per customer, period and threshold ({levels} % of the credits included) after each pull and each "
        "reading of Stripe."
    )


def _reached(board: DueNotices, names: Mapping[str, str], zone: ZoneInfo) -> None:
    """What an admin of some organizations sees: made of their events alone, with nothing to mark."""
    if not board.reached:
        st.success(texts.NO_THRESHOLD, icon=":material/check_circle:")
        return
    rows = reached_rows(board.reached, names, zone)
    table(rows, alt="Thresholds reached by your organizations' own use", key="org-notices-reached")


def _open(
    service: BillingService, principal: Principal, board: DueNotices, names: Mapping[str, str], zone: ZoneInfo
) -> None:
    if not board.open:
        st.success("No open notice.", icon=":material/check_circle:")
        return
    groups = by_customer(board.open)
    shown = groups[:LISTED]
    chosen = picked_rows(
        shown,
        notice_rows([highest for highest, *_ in shown], names, zone),
        name="org-notices",
        identity=[one.notice.id for group in shown for one in group],
        alt="Customers with open notices and the highest limit that each has reached, newest period first",
        height="auto" if len(shown) < 10 else 390,
    )
    if len(groups) > len(shown):
        st.caption(f"and {len(groups) - len(shown):,} more customers")
    if lower := [one for _, *rest in shown for one in rest]:
        with st.expander(texts.LOWER_NOTICES.format(number=len(lower)), icon=":material/unfold_more:"):
            table(notice_rows(lower, names, zone), alt="Lower thresholds and earlier periods", key="org-notices-lower")
    picked = [one for group in chosen for one in group]
    with st.container(horizontal=True, key="org-notices-actions"):
        some = f"Mark {count_of(len(picked), 'notice')} as seen" if picked else "Mark selected as seen"
        _button(service, principal, picked, some, "org-notices-mark")
        _button(service, principal, board.open, f"Mark all {len(board.open):,} as seen", "org-notices-mark-all")


def by_customer(notices: Sequence[RaisedNotice]) -> list[list[RaisedNotice]]:
    """The notices of each customer, newest period first and in it the highest threshold; customers as they come."""
    groups: dict[str, list[RaisedNotice]] = {}
    for one in notices:
        groups.setdefault(one.notice.customer_id, []).append(one)
    for group in groups.values():
        group.sort(key=lambda one: (one.notice.period_end, one.notice.threshold), reverse=True)
    return list(groups.values())


def _button(
    service: BillingService, principal: Principal, notices: Sequence[RaisedNotice], label: str, key: str
) -> None:
    ids = [one.notice.id for one in notices]
    st.button(
        label,
        icon=":material/visibility:",
        key=key,
        disabled=not ids,
        on_click=_mark,
        args=(service, principal, ids),
        help=None if ids else texts.SELECT_NOTICES,
    )


def _mark(service: BillingService, principal: Principal, ids: Sequence[str]) -> None:
    try:
        marked = service.organizations.limits.notices.mark_seen(principal, ids)
    except BillingError as error:
        remember_outcome(SAID, f"Not done: {error}", is_done=False)
    else:
        others = len(ids) - marked
        rest = f" {count_of(others, 'notice')} had already been marked by somebody else." if others else ""
        remember_outcome(SAID, f"{count_of(marked, 'notice')} marked as seen.{rest}", is_done=True)
