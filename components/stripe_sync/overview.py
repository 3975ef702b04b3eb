"""The pipeline overview: credits per stage, what else is owed, how much time is left."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from billing_core.access import Principal
from billing_core.service import BillingService
from billing_core.stripe_sync.pipeline import Amounts, Pipeline
from billing_core.stripe_sync.read_ration import MONTHLY_READS
from billing_core.types import Flag, GetUsageEventsParams, PipelineStage
from billing_core.values.counts import count_of
from billing_core.values.decimals import EXACT
from components.shared.chart import draw_figure
from components.shared.colours import STAGE_MARKS
from components.shared.formats import ago, exact, moment, rounded, short_usd
from components.shared.links import usage_link
from components.shared.notice import plain
from components.shared.widgets import table, tile
from components.stripe_sync import texts
from components.stripe_sync.charts import stage_bar
from components.stripe_sync.rows import carried_rows
from components.stripe_sync.state import PipelineView
from components.stripe_sync.texts import deadline_text, in_words, last_push_text

SETTLED = (Flag.WRITTEN_OFF.value, Flag.INVOICED_SEPARATELY.value)
"""Causes, as the filter of Usage Events names them, of events that were settled."""


def whole_ledger(service: BillingService, principal: Principal) -> Amounts:
    """The totals of all usage events, without any filter."""
    answer = service.get_usage_events(GetUsageEventsParams(limit=1), principal)
    return Amounts(answer.pagination.total_items, answer.totals.credits.total, answer.totals.amount_usd)


def overview(service: BillingService, principal: Principal, view: PipelineView, now: datetime) -> None:
    """Draw the stages that hold something, their sum against the ledger, and the facts beside them."""
    pipeline = view.pipeline
    if not service.stripe.is_connected:
        st.info(texts.NO_STRIPE, icon=":material/link_off:")
    st.header("On the way to Stripe", anchor=False)
    theme = st.context.theme.type or "light"
    if pipeline.total.credits > 0:
        draw_figure(
            stage_bar(pipeline, theme),
            key="sync-stages",
            alt="Credits of the ledger by stage; the tiles below name every figure",
        )
    grid = st.grid("auto", min_column_width=150, key="sync-stage-tiles")
    for stage, amounts in pipeline.stages.items():
        if amounts.events:
            _stage_tile(grid, stage, amounts)
    _whole_tile(grid, pipeline, whole_ledger(service, principal))
    _facts(service, principal, pipeline, now)
    empty = [STAGE_MARKS[stage].word for stage, amounts in pipeline.stages.items() if not amounts.events]
    if empty:
        st.caption(plain(f"No events: {', '.join(empty)}."))
    _carried(pipeline)


def _stage_tile(grid: DeltaGenerator, stage: PipelineStage, amounts: Amounts) -> None:
    mark = STAGE_MARKS[stage]
    note = f"{mark.meaning} Exactly {exact(amounts.credits)} credits, {exact(amounts.amount_usd)} US dollars."
    key = f"sync-stage-{stage}"
    box = tile(grid, mark.text, f"{rounded(amounts.credits)} credits", [_events_and_money(amounts)], note=note, key=key)
    with box:
        usage_link(texts.SHOW_EVENTS, stage=stage.value)


def _whole_tile(grid: DeltaGenerator, pipeline: Pipeline, ledger: Amounts) -> None:
    """The sum, and whether every event of the ledger stands in exactly one stage."""
    total = pipeline.total
    agrees = total == ledger
    verdict = "✓ equals the whole ledger" if agrees else "✕ differs from the ledger"
    box = tile(
        grid,
        "All stages",
        f"{rounded(total.credits)} credits",
        [_events_and_money(total), verdict],
        note=f"The stages together: {exact(total.credits)} credits. The ledger: {exact(ledger.credits)} credits.",
        key="sync-stage-all",
    )
    if not agrees:
        box.warning(
            plain(
                f"The ledger has {count_of(ledger.events, 'event')} with {exact(ledger.credits)} credits "
                f"({short_usd(ledger.amount_usd)}). If this persists after a reload, contact your administrator."
            ),
            icon=":material/warning:",
        )


def _events_and_money(amounts: Amounts) -> str:
    return f"{count_of(amounts.events, 'event')} · {short_usd(amounts.amount_usd)}"


def _facts(service: BillingService, principal: Principal, pipeline: Pipeline, now: datetime) -> None:
    zone = service.settings.zone
    deadline = service.stripe.next_deadline(principal)
    runs = service.stripe.pushes(principal, 1)
    grid = st.grid(4, min_column_width=220, key="sync-facts")
    owed = pipeline.corrections
    if owed.events:
        tile(
            grid,
            "Corrections due",
            f"{'+' if owed.credits > 0 else ''}{rounded(owed.credits)} credits",
            [f"{count_of(owed.events, 'event')} changed after sending, {short_usd(owed.amount_usd)}"],
            note=texts.CORRECTIONS_NOTE,
            key="sync-corrections",
        )
    oldest = pipeline.oldest_unsent
    tile(
        grid,
        "Oldest unsent",
        "none" if oldest is None else ago(oldest, now),
        [texts.NOTHING_UNSENT if oldest is None else f"{moment(oldest, zone)} {zone.key}"],
        note=texts.OLDEST_NOTE,
        key="sync-oldest",
    )
    if deadline is not None:
        tile(
            grid,
            "Next deadline",
            in_words(deadline.finalizes_at, now),
            [deadline_text(deadline, now, zone)],
            note=texts.DEADLINE_NOTE,
            key="sync-deadline",
        )
    last = runs[0] if runs else None
    tile(
        grid,
        "Last push",
        "none yet" if last is None else f"{moment(last.started_at, zone)} {zone.key}",
        [
            last_push_text(last, now, is_pushing=service.stripe.is_pushing()),
            texts.READS.format(reads=service.stripe.reads_this_month(principal), allowed=MONTHLY_READS),
        ],
        note=texts.LAST_PUSH_NOTE,
        key="sync-last-push",
    )


def _carried(pipeline: Pipeline) -> None:
    total = Decimal(0)
    for one in pipeline.carried:
        total = EXACT.add(total, one.credits)
    label = (
        f"Rounding carried forward: {rounded(total)} credits of {count_of(len(pipeline.carried), 'customer')}"
        if pipeline.carried
        else "Rounding carried forward: none"
    )
    with st.expander(plain(label), icon=":material/more_horiz:"):
        st.caption(texts.ROUNDING_NOTE)
        if pipeline.carried:
            rows = carried_rows(pipeline.carried)
            table(rows, alt="Rounding carried forward per customer", key="sync-carried", right=["Credits"])
