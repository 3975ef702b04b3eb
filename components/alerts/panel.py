"""The Alerts page: where alerts go, the rules, and what they told."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from billing_core.access import Principal
from billing_core.alerts.model import Kind, Rule
from billing_core.alerts.rules import in_words
from billing_core.alerts.service import Firing
from billing_core.errors import BillingError
from billing_core.service import BillingService
from billing_core.types import GetUsageEventsParams
from components.alerts import texts
from components.alerts.dialogs import ICONS, dialogs, open_dialog
from components.alerts.state import SAID, URL, Act
from components.shared.data_grid import picked_rows
from components.shared.links import USAGE_PAGE
from components.shared.notice import plain
from components.shared.outcome import remember_outcome, show_outcome
from components.shared.widgets import quiet, table

LISTED = 200
"""Alerts of the history that are listed, the newest."""


def alerts_view(service: BillingService, principal: Principal) -> None:
    """Draw the page for one reader."""
    st.caption(plain(texts.FORM))
    URL.told()
    if principal.organizations is not None:
        st.info(texts.LIMITED, icon=":material/lock:")
    else:
        _receivers(service, principal)
    show_outcome(SAID)
    with quiet():
        _rules(service, principal)
    with quiet():
        _history(service, principal)
    dialogs(service)


def _receivers(service: BillingService, principal: Principal) -> None:
    labels = service.alerts.receivers
    if not labels:
        st.warning(plain(texts.NO_ADDRESS), icon=":material/notifications_off:")
        return
    with st.container(horizontal=True, vertical_alignment="center", key="alerts-receivers"):
        st.text(texts.receivers_text(labels), width="stretch")
        st.button(
            "Send a test",
            icon=":material/send:",
            key="alerts-test",
            help=texts.TEST_NOTE,
            on_click=_act,
            args=(lambda: _test(service, principal),),
        )


def _test(service: BillingService, principal: Principal) -> tuple[str, bool]:
    found = service.alerts.test(principal)
    return texts.test_text(found), all(error is None for _, error in found)


def _check(service: BillingService, principal: Principal) -> tuple[str, bool]:
    found = service.alerts.check(principal)
    problems = (*found.problems, *found.delivery.failed)
    return texts.check_text(len(found.fired), found.delivery.delivered, problems), not problems


def _recommended(service: BillingService, principal: Principal) -> tuple[str, bool]:
    added = service.alerts.add_recommended(principal)
    return f"Added: {', '.join(rule.name for rule in added)}", True


def _act(act: Callable[[], tuple[str, bool]]) -> None:
    try:
        said, is_done = act()
    except BillingError as error:
        said, is_done = f"Not done: {error}", False
    remember_outcome(SAID, said, is_done=is_done)


# ── rules ────────────────────────────────────────────────────────────────────────────────────────


def _rules(service: BillingService, principal: Principal) -> None:
    zone, now = service.settings.zone, service.now()
    rules = service.alerts.rules(principal)
    with st.container(horizontal=True, vertical_alignment="center", key="alerts-head"):
        st.header("Rules", anchor=False, width="stretch")
        if rules and principal.organizations is None:
            st.button(
                "Check now",
                icon=":material/play_arrow:",
                key="alerts-check",
                help=texts.CHECK_NOTE,
                on_click=_act,
                args=(lambda: _check(service, principal),),
            )
        st.button(
            "Add a rule", icon=ICONS[Act.ADD], key="alerts-add", type="primary", on_click=open_dialog, args=(Act.ADD,)
        )
    if not rules:
        st.info(texts.NO_RULES, icon=":material/notifications:")
        if principal.organizations is None:
            st.button(
                "Add the recommended rules",
                icon=":material/playlist_add:",
                key="alerts-recommended",
                help=texts.recommended_text(),
                on_click=_act,
                args=(lambda: _recommended(service, principal),),
            )
        return
    chosen = picked_rows(
        rules,
        texts.rule_rows(rules, zone, now),
        name="alert-rules",
        identity=[(one.rule.id, one.rule.revision) for one in rules],
        alt="Rules, oldest first",
        right=["Alerts"],
        mode="single-row",
    )
    if not chosen:
        st.caption(texts.SELECT_A_RULE)
    for one in chosen:
        _rule(service, principal, one.rule)


def _rule(service: BillingService, principal: Principal, rule: Rule) -> None:
    zone, is_muted = service.settings.zone, rule.is_muted(service.now())
    with st.container(border=True, key="alert-rule"):
        st.markdown(f"**{plain(rule.name)}**")
        st.text(in_words(rule.terms))
        st.caption(plain(texts.made_text(rule, zone)))
        if (scope := texts.scope_text(rule)) is not None:
            st.caption(plain(scope))
        if is_muted and rule.mute is not None:
            st.warning(plain(texts.mute_text(rule.mute, zone)), icon=ICONS[Act.MUTE])
        with st.container(horizontal=True):
            _button("Change…", Act.EDIT, rule)
            if is_muted:
                st.button(
                    "Unmute",
                    icon=":material/notifications_active:",
                    key="alert-unmute",
                    on_click=_act,
                    args=(lambda: _unmute(service, principal, rule),),
                )
            else:
                _button("Mute…", Act.MUTE, rule)
            _button("Remove…", Act.REMOVE, rule)
            st.button(
                "Show its alerts",
                icon=":material/filter_alt:",
                key="alert-only",
                on_click=URL.change,
                kwargs={"rule": rule.id},
            )
        if rule.terms.kind is Kind.SUMMARY:
            with quiet():
                _summary(service, principal, rule)


def _button(label: str, act: Act, rule: Rule) -> None:
    st.button(label, icon=ICONS[act], key=f"alert-{act.value}", on_click=open_dialog, args=(act, rule))


def _unmute(service: BillingService, principal: Principal, rule: Rule) -> tuple[str, bool]:
    service.alerts.mute(principal, rule.id, None)
    return f"No longer muted: {rule.name}", True


def _summary(service: BillingService, principal: Principal, rule: Rule) -> None:
    """The summary of the last week, as it is sent."""
    offered = [name for name, _ in service.facets(GetUsageEventsParams(), principal, "organization") if name]
    if rule.terms.subject is not None:
        offered = [rule.terms.subject]
    chosen = st.selectbox(
        "Preview of the last week", offered, index=None, key="alert-summary", placeholder="Organization", width=320
    )
    if chosen is not None:
        found = service.alerts.summary(principal, chosen)
        st.markdown(f"**{plain(found.title)}**")
        st.text(found.text)


# ── history ──────────────────────────────────────────────────────────────────────────────────────


def _history(service: BillingService, principal: Principal) -> None:
    zone, only = service.settings.zone, URL.current().rule
    found = service.alerts.history(principal, rule_id=only or None, limit=LISTED)
    with st.container(horizontal=True, vertical_alignment="center", key="alerts-history-head"):
        st.header("History", anchor=False, width="stretch")
        if only:
            st.button(
                "Show all alerts",
                icon=":material/filter_alt_off:",
                key="alerts-all",
                on_click=URL.change,
                kwargs={"rule": ""},
            )
    if not found:
        st.caption(texts.NO_HISTORY)
        return
    chosen = picked_rows(
        found,
        texts.firing_rows(found, zone),
        name="alert-history",
        identity=[one.id for one in found],
        alt="Alerts, newest first",
        mode="single-row",
        height="auto" if len(found) < 10 else 390,
    )
    if len(found) == LISTED:
        st.caption(f"The newest {LISTED:,}; “alerts history” lists more.")
    if not chosen:
        st.caption(texts.SELECT_AN_ALERT)
    for one in chosen:
        _firing(service, one)


def _firing(service: BillingService, one: Firing) -> None:
    with st.container(border=True, key="alert-firing"):
        st.markdown(f"**{plain(one.title)}**")
        st.text(one.text)
        page = f"{one.page}.py" if one.page else USAGE_PAGE
        st.page_link(page, label="Open the view", icon=":material/arrow_outward:", query_params=one.query)
        if one.deliveries:
            rows = texts.delivery_rows(one.deliveries, service.settings.zone)
            table(rows, alt="Delivery to each address", key="alert-deliveries", right=["Tries"])
