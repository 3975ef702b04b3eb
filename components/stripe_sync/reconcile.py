"""The reconciliation section: choose a period, compare Langfuse, ledger and Stripe, see every difference down to the
event.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

import streamlit as st

from billing_core.access import Principal, Role
from billing_core.reconcile.report import CustomerDay, DifferencePart, Reconciliation, waterfall
from billing_core.service import BillingService
from billing_core.values.counts import count_of
from billing_core.web import wiring
from components.shared import sign_in
from components.shared.chart import chart
from components.shared.formats import ago, day_text, rounded
from components.shared.job_progress import follow
from components.shared.links import event_link, file_link
from components.shared.notice import plain
from components.shared.widgets import table, tile
from components.stripe_sync import texts
from components.stripe_sync.charts import heat_map, waterfall_figure
from components.stripe_sync.marks import cause_words
from components.stripe_sync.rows import (
    NOBODY,
    Measure,
    book_totals,
    cause_rows,
    cross_check_rows,
    difference,
    difference_rows,
    heat_grid,
    rows_with_differences,
    waterfall_rows,
)
from components.stripe_sync.texts import reconcile_progress_text, unexplained_text

if TYPE_CHECKING:
    from billing_core.web.jobs import ReconcileState

RECONCILIATION_PATH = "/download/reconciliation.csv"

DAYS, MEASURE, PLACE = "sync.days", "sync.measure", "sync.place"
"""Session state: the chosen UTC days, the two books compared, the customer and day looked at."""

REFRESH_SECONDS = 0.5
FULL_DAYS = 7

SHOWN_PLACES = 500
"""Differing rows offered for a closer look; the table has every one."""

SHOWN_EVENTS = 20

BOOKS = ("Langfuse", "Ledger", "Sent", "Stripe", "Langfuse − Stripe", "Unexplained")

MEANINGS = {
    "Langfuse": "Credits of every trace, re-read from Langfuse and rated as the ledger does.",
    "Ledger": "Credits of the usage events in the ledger.",
    "Sent": "Whole credits of the meter events that Stripe accepted.",
    "Stripe": "What Stripe's own summaries count.",
}

Place = tuple[str, str]
"""A customer (empty: nobody) and a UTC day."""


def default_days(today: date) -> tuple[date, date]:
    """The days to reconcile unless others are chosen: the last seven full UTC days, and today."""
    return today - timedelta(days=FULL_DAYS), today


def window_of_days(first: date, last: date, now: datetime) -> tuple[datetime, datetime]:
    """The window from the first UTC midnight to the one after the last day, or to now if that comes first."""
    start = datetime.combine(first, time.min, UTC)
    return start, min(datetime.combine(last + timedelta(days=1), time.min, UTC), now)


def reconcile_panel(service: BillingService, principal: Principal, now: datetime) -> None:
    """Draw the reconciliation section: the form for a new comparison, and the last one."""
    found = service.stripe.last_reconciliation(principal)
    st.space("small")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.header("Reconciliation", anchor=False, width="stretch")
        if found is not None:
            file_link("CSV", RECONCILIATION_PATH, note=texts.RECONCILE_CSV_NOTE, key="sync-reconciliation-csv")
    st.caption(texts.RECONCILE_NOTE)
    state = wiring.reconcile_job().state
    _controls(service, principal, state, now)
    with st.container(key="sync-reconcile-status"):
        if state is not None and state.is_running:
            st.fragment(_watch, run_every=REFRESH_SECONDS)()
        elif state is not None and state.error is not None:
            st.error(plain(f"The last attempt stopped: {state.error}"), icon=":material/error:")
    if found is None:
        st.info(texts.NEVER_RECONCILED, icon=":material/balance:")
    else:
        _figures(found, now)
        st.fragment(_source_table)(found)  # looking around runs nothing else of the page


def _controls(service: BillingService, principal: Principal, state: ReconcileState | None, now: datetime) -> None:
    is_running = state is not None and state.is_running
    today = now.astimezone(UTC).date()
    with st.container(horizontal=True, vertical_alignment="bottom", key="sync-reconcile-controls"):
        chosen = st.date_input(
            "Days (UTC), both included", default_days(today), max_value=today, key=DAYS, format="YYYY-MM-DD", width=280
        )
        days = list(chosen) if isinstance(chosen, tuple) else []
        is_whole = len(days) == 2
        args: tuple[Any, ...] = (service, principal)
        if is_whole:
            args += window_of_days(days[0], days[-1], now)
        st.button(
            "Reconcile",
            icon=":material/balance:",
            key="sync-reconcile",
            disabled=is_running or not is_whole,
            on_click=_start,
            args=args,
            help=None if is_whole else texts.END_DATE_NEEDED,
        )


def _start(service: BillingService, principal: Principal, start: datetime, end: datetime) -> None:
    wiring.reconcile_job().start(service, principal, start, end)


def _watch() -> None:
    """Follow a reconciliation; then draw the page with what it found."""
    sign_in.guard(Role.ADMIN, Role.FINANCE)
    follow(wiring.reconcile_job().state, reconcile_progress_text)


# ── the last one ─────────────────────────────────────────────────────────────────────────────────


def _figures(found: Reconciliation, now: datetime) -> None:
    start, end = found.window.start.astimezone(UTC), found.window.end.astimezone(UTC)
    st.markdown(
        plain(f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, compared {ago(found.made_at, now)}")
        + f" ({plain(count_of(len(found.rows), 'row'))})"
    )
    verdict = plain(unexplained_text(found))
    if found.unexplained_credits:
        st.error(verdict, icon=":material/error:")
    elif found.problems:
        st.warning(verdict, icon=":material/warning:")
    else:
        st.success(verdict, icon=":material/check_circle:")
    for problem in found.problems:
        st.warning(plain(problem), icon=":material/warning:")
    grid = st.grid("auto", min_column_width=165, key="sync-books")
    totals = book_totals(found)
    for name, total in totals.items():
        tile(grid, name, rounded(total), ["credits"], note=MEANINGS[name], key=f"sync-book-{name.lower()}")
    tile(
        grid,
        "Unexplained",
        rounded(found.unexplained_credits),
        ["credits"],
        note=texts.UNEXPLAINED_NOTE,
        key="sync-book-unexplained",
    )
    _findings(found)


def _findings(found: Reconciliation) -> None:
    for finding in found.findings:
        st.warning(plain(finding.says), icon=":material/money_off:")
    check = found.cross_check
    if check.days is None:
        st.caption(plain(f"Cross-check with Langfuse's own daily sums: not made ({check.reason or 'no reason given'})"))
        return
    rows = cross_check_rows(check)
    if not rows["Day (UTC)"]:
        days = count_of(len(check.days), "UTC day")
        st.caption(plain(f"✓ Langfuse's own daily sums agree with every row that was read, on {days}"))
        return
    days = count_of(len(rows["Day (UTC)"]), "day")
    with st.expander(f"Langfuse's own daily sums differ from the rows read, on {days}", icon=":material/rule:"):
        st.caption(texts.DAILY_SUMS_NOTE)
        table(rows, alt="Langfuse's sums minus those of the rows", key="sync-cross-check", right=list(rows)[1:])


def _source_table(found: Reconciliation) -> None:
    """Map, table, closer look and waterfall."""
    sign_in.guard(Role.ADMIN, Role.FINANCE)
    theme = st.context.theme.type or "light"
    if not found.rows:
        st.info(texts.NOBODY_ACTIVE, icon=":material/inbox:")
        return
    has_stripe = book_totals(found)["Stripe"] is not None or any(row.stripe_credits is not None for row in found.rows)
    measures = list(Measure)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        measure = st.selectbox(
            "Difference",
            measures,
            index=0 if has_stripe else measures.index(Measure.LEDGER_SENT),
            format_func=lambda one: one.value,
            key=MEASURE,
            width=220,
            filter_mode=None,
            help=texts.DIFFERENCE_NOTE,
        )
    rows = rows_with_differences(found, measure)
    grid = heat_grid(found, measure)
    chart(
        "Differences by customer and day",
        "heat",
        lambda: heat_map(grid, measure, theme),
        difference_rows(rows),
        alt=f"{measure.value} in credits, by customer and UTC day",
        right=BOOKS,
        on_click=_choose,
        hint=texts.HEAT_MAP_HINT,
    )
    if grid.left_out:
        st.caption(f"The {len(grid.customers)} customers that differ most; {grid.left_out:,} more are in the table.")
    _draw_details(found, rows, measure)
    steps = waterfall(found)
    first, last = steps[0][0], steps[-1][0]
    chart(
        f"From {first.capitalize()} to {last.capitalize()}",
        "waterfall",
        lambda: waterfall_figure(steps, theme),
        waterfall_rows(steps),
        alt=f"Credits from {first} to {last}, one step per cause",
        right=["Credits"],
        hint=texts.WATERFALL_HINT,
    )


def _choose(point: Sequence[Any]) -> None:
    st.session_state[PLACE] = (str(point[0]), str(point[1]))


def _draw_details(found: Reconciliation, rows: Sequence[CustomerDay], measure: Measure) -> None:
    """One customer's day: its books, its causes, the events behind them."""
    by_place: dict[Place, CustomerDay] = {_place(row): row for row in rows[:SHOWN_PLACES]}
    asked: Place | None = st.session_state.get(PLACE)
    if asked is not None and asked not in by_place:
        row = next((row for row in found.rows if _place(row) == asked), None)
        if row is None:
            st.session_state.pop(PLACE)
        else:
            by_place[asked] = row
    if not by_place:
        st.success(texts.ALL_AGREE, icon=":material/check_circle:")
        return
    with st.container(border=True, key="sync-closer-look"):
        chosen = st.selectbox(
            f"Details ({count_of(len(rows), 'customer-day')} differ)",
            list(by_place),
            index=None,
            key=PLACE,
            format_func=lambda place: _place_text(by_place[place], measure),
            placeholder="Choose a customer and a UTC day, or click a cell of the map",
        )
        if chosen is not None:
            _causes(by_place[chosen])


def _place(row: CustomerDay) -> Place:
    return row.customer_id or "", row.day.isoformat()


def _place_text(row: CustomerDay, measure: Measure) -> str:
    value = difference(row, measure)
    shown = "unknown" if value is None else f"{rounded(value)} credits"
    mark = f", {rounded(row.unexplained_credits)} unexplained" if row.unexplained_credits else ""
    return f"{row.customer_id or NOBODY}, {day_text(row.day)}: {shown}{mark}"


def _causes(row: CustomerDay) -> None:
    books = (
        f"Langfuse {rounded(row.langfuse_credits)} · ledger {rounded(row.ledger_credits)} · "
        f"sent {rounded(row.sent_credits)} · Stripe {rounded(row.stripe_credits)} credits on {row.day.isoformat()} UTC"
    )
    st.markdown(plain(books))
    if not row.parts:
        st.caption("All sources agree.")
        return
    table(
        cause_rows(row),
        alt="Causes of the difference",
        key=f"sync-causes-{row.customer_id}-{row.day}",
        right=["Credits", "Events", "Meter events"],
    )
    for part in row.parts:
        _evidence(part)


def _evidence(part: DifferencePart) -> None:
    """Which events and meter events a cause is about; events lead to their explanations."""
    if not part.event_ids and not part.meter_events:
        return
    label = cause_words(part.cause or "contradiction").label
    what = [count_of(len(part.event_ids), "event")] if part.event_ids else []
    what += [count_of(len(part.meter_events), "meter event")] if part.meter_events else []
    with st.expander(plain(f"{label}: {', '.join(what)}"), icon=":material/receipt_long:"):
        if part.event_ids:
            with st.container(horizontal=True):
                for event_id in part.event_ids[:SHOWN_EVENTS]:
                    event_link(event_id)
        if (rest := len(part.event_ids) - SHOWN_EVENTS) > 0:
            st.caption(f"and {rest:,} more events; the CSV has every id")
        if part.meter_events:
            st.caption("Identifiers at Stripe")
            st.code("\n".join(part.meter_events[:SHOWN_EVENTS]), language=None, wrap_lines=True)
        if (rest := len(part.meter_events) - SHOWN_EVENTS) > 0:
            st.caption(f"and {rest:,} more meter events; the CSV has every identifier")
