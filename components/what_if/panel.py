"""The what-if view: past usage priced with other cards, and, if somebody decides so, booked like that."""

from __future__ import annotations

import streamlit as st

from billing_core.access import Principal, Role
from billing_core.errors import BillingError
from billing_core.rating.card import RateCardFile
from billing_core.service import BillingService
from billing_core.web import wiring
from components.shared import sign_in
from components.shared.job_progress import follow
from components.shared.notice import plain
from components.shared.outcome import remember_outcome, show_outcome
from components.shared.url_state import period_boxes
from components.shared.widgets import quiet
from components.what_if import texts
from components.what_if.answer import show_answer
from components.what_if.cards import cards_box
from components.what_if.state import ANSWER, APPLYING, AWAITED, SAID, URL, RerateResult, discard, keep
from components.what_if.texts import applied_text, apply_sentences, cards_line, confirms, progress_text, window_text

REFRESH_SECONDS = 0.5
"""Between two looks at cards that are being applied."""


def what_if_view(service: BillingService, principal: Principal) -> None:
    """Draw the what-if view."""
    st.caption(plain(texts.FORM))
    if principal.organizations is not None:
        st.info(texts.LIMITED, icon=":material/lock:")
        return
    st.caption(texts.SETTINGS_NOTE)
    _show_progress(service)
    with st.container(key="what-if-said"):  # always there, so that what stands below keeps its place
        show_outcome(SAID)
    state = wiring.rerate_job().state
    is_busy = state is not None and state.is_running
    with st.container(key="what-if-status"):
        if is_busy:
            st.fragment(_watch, run_every=REFRESH_SECONDS)()
    with quiet():
        _question(service, principal, is_busy=is_busy)
    kept = ANSWER.get()
    if kept is not None:
        with quiet(), st.container(border=True, key="what-if-answer"):
            show_answer(service, principal, kept)
            _decide(service, principal, kept, is_busy=is_busy)
        if APPLYING.get() and not kept.found.applied:
            st.dialog("Apply these cards?", icon=":material/price_change:", on_dismiss=APPLYING.drop)(_confirm)(service)


# ── the question ─────────────────────────────────────────────────────────────────────────────────


def _question(service: BillingService, principal: Principal, *, is_busy: bool) -> None:
    URL.told()
    found = cards_box(service)
    with st.container(horizontal=True, vertical_alignment="bottom", key="what-if-bar"):
        period_boxes(URL, service.settings.zone)
        asked = st.button(
            "Calculate",
            type="primary",
            icon=":material/calculate:",
            key="what-if-ask",
            disabled=found is None or is_busy,
        )
    st.caption(texts.PERIOD_NOTE)
    if asked and found is not None:
        _work_out(service, principal, *found)
        st.rerun()


def _work_out(service: BillingService, principal: Principal, cards: RateCardFile, label: str) -> None:
    """Nothing is written. Whoever goes elsewhere meanwhile stops it."""
    discard()
    window = URL.current().window(service.now(), service.settings.zone)
    bar = st.progress(0.0, text="Reading events")

    def see(fraction: float, doing: str) -> None:
        bar.progress(min(1.0, max(0.0, fraction)), text=plain(doing[:1].upper() + doing[1:]))

    version = service.version()
    try:
        found = service.rerating.what_if(principal, cards, *window, progress=see)
    except BillingError as error:
        remember_outcome(SAID, f"Not calculated: {error}", is_done=False)
    else:
        keep(cards, label, window, found, version)
    finally:
        bar.empty()


# ── the decision ─────────────────────────────────────────────────────────────────────────────────


def _decide(service: BillingService, principal: Principal, kept: RerateResult, *, is_busy: bool) -> None:
    is_current = kept.version == service.version()
    if not kept.found.applied and not is_current:
        st.caption(texts.OUTDATED)
    with st.container(horizontal=True, vertical_alignment="center", key="what-if-decide"):
        if kept.found.events_changed and not kept.found.applied and principal.role is Role.ADMIN:
            st.button(
                "Apply…",
                icon=":material/price_change:",
                key="what-if-apply",
                disabled=is_busy or not is_current,
                on_click=APPLYING.put,
                args=(True,),
            )
        st.button("Dismiss", icon=":material/close:", key="what-if-discard", on_click=discard)
    if principal.role is not Role.ADMIN:
        st.caption(texts.READERS_NOTE)


def _confirm(service: BillingService) -> None:
    """What applying means, and the figure to type."""
    principal = sign_in.guard(Role.ADMIN)
    kept = ANSWER.get()
    if kept is None or not APPLYING.get():
        st.rerun()
    zone = service.settings.zone
    st.markdown(f"**{plain(cards_line(kept.cards, zone))}**")
    st.markdown(plain(f"On {window_text(kept.found, zone)}."))
    for sentence in apply_sentences(kept.found):
        st.markdown(plain(sentence))
    number = kept.found.events_changed
    typed = st.text_input(
        f"Type how many events change ({number:,}) to confirm", key=f"what-if-typed-{kept.number}", max_chars=20
    )
    with st.container(horizontal=True):
        st.button(
            f"Apply to {number:,} event{'' if number == 1 else 's'}",
            type="primary",
            icon=":material/price_change:",
            key="what-if-confirm",
            disabled=not confirms(typed, kept.found),
            on_click=_apply,
            args=(service, principal, kept),
        )
        st.button("Cancel", key="what-if-cancel", on_click=APPLYING.drop)


def _apply(service: BillingService, principal: Principal, kept: RerateResult) -> None:
    AWAITED.begin(wiring.rerate_job().start(service, principal, kept.cards, kept.start, kept.end))
    APPLYING.drop()


def _watch() -> None:
    """Follow cards being applied, whoever decided so; then draw the page with what came of it."""
    sign_in.guard(Role.FINANCE, Role.ADMIN)
    follow(wiring.rerate_job().state, progress_text)


def _show_progress(service: BillingService) -> None:
    """What applying came to, for the session that asked for it; its answer then shows what was booked."""
    if not AWAITED.is_over():
        return
    state, kept = wiring.rerate_job().state, ANSWER.get()
    if state is None or state.ended_at is None:
        return
    if state.result is None:
        text = f"{state.error} What was applied stays; apply again for the rest."
        remember_outcome(SAID, text, is_done=False)
        return
    remember_outcome(SAID, applied_text(state.result, state.ended_at, service.settings.zone), is_done=True)
    if kept is not None:
        keep(kept.cards, kept.label, (kept.start, kept.end), state.result, service.version())
